package contract

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
)

// maxParts bounds the files that a contract is looked for in.
const maxParts = 1000

// parts lists the files that a contract is made of, in order. What cannot be read
// is listed and not looked into.
func parts(file string) []string {
	found := []string{file}
	for i := 0; i < len(found) && i < maxParts; i++ {
		part, err := openapi.ReadFile(found[i])
		if err != nil {
			continue
		}
		references(part.Root, func(ref string) {
			name, _, _ := strings.Cut(ref, "#")
			if name == "" || strings.Contains(name, "://") {
				return
			}
			if name = filepath.Join(filepath.Dir(found[i]), filepath.FromSlash(name)); !slices.Contains(found, name) && len(found) < maxParts {
				found = append(found, name)
			}
		})
	}
	slices.Sort(found) // references are found in no order
	return found
}

func references(value any, each func(ref string)) {
	switch value := value.(type) {
	case map[string]any:
		if ref, ok := value["$ref"].(string); ok {
			each(ref)
		}
		for _, v := range value {
			references(v, each)
		}
	case []any:
		for _, v := range value {
			references(v, each)
		}
	}
}
