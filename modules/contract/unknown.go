package contract

import (
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
)

// unknown is what a document says in words that OpenAPI does not have. What they
// were to say is not done, which nobody would notice: `securty` asks for nothing.
type unknown struct {
	words [][]zap.Field
	more  int
}

func unknownWords(root openapi.Node) (u unknown) {
	list, more := openapi.Misspelt(root, parse.Nearest)
	for _, w := range list {
		fields := []zap.Field{zap.String("contract", w.At.Where()), zap.String("word", w.Text), zap.String("of", w.In)}
		if w.Near != "" {
			fields = append(fields, zap.String("did_you_mean", w.Near))
		}
		u.words = append(u.words, fields)
	}
	u.more = more
	return u
}

func (u unknown) log(l *zap.Logger) {
	for _, fields := range u.words {
		l.Warn("the contract has a word that OpenAPI does not know, and nothing goes by it", fields...)
	}
	if u.more > 0 {
		l.Warn("the contract has more words that OpenAPI does not know", zap.Int("more", u.more))
	}
}
