# Everything a developer runs. `make` alone lists the targets.
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME ?= 5s

.PHONY: help run test lint golden fuzz bench build deps
help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: ## run the quickstart: a gateway before a small API, on http://localhost:8080
	go run ./cmd/caddy run --config examples/quickstart/Caddyfile

test: deps ## install what the tests need and run them all, with the race detector
	go test -race -timeout 20m ./...
	go test -run TestCoreRuleSet ./modules/firewall # all of it: a fortieth runs under the race detector

lint: ## vet and lint
	go vet ./...
	go run $(GOLANGCI) run ./...

golden: ## rewrite golden files and generated docs; read the diff as a user would
	go test ./caddyfile -update
	go test ./modules/gate -run TestReasons -update

fuzz: ## fuzz every target for FUZZTIME each
	@go list -f '{{.Dir}}' ./... | while read -r dir; do \
		grep -ho '^func Fuzz[A-Za-z0-9_]*' "$$dir"/*_test.go 2>/dev/null | sed 's/^func //' | while read -r target; do \
			echo "== $$dir $$target"; \
			(cd "$$dir" && go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x .) || exit 1; \
		done || exit 1; \
	done

bench: ## measure the gateway against plain Caddy, stage by stage
	bench/run

build: ## build the distribution into ./caddy
	CGO_ENABLED=0 go build -trimpath -o caddy ./cmd/caddy

deps: ## install what the tests need and the machine lacks
	@bash .ci/deps
