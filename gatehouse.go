package gatehouse
