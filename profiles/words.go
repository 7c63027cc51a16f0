package profiles

import (
	"strconv"

	"github.com/stockade-dev/stockade/profiles/spelling"
)

func quote(text string) string { return strconv.Quote(text) }

// suggest names the word that was probably meant, or says otherwise.
func suggest(text string, words []string, otherwise string) string {
	if best, ok := spelling.Nearest(text, words); ok {
		return "did you mean " + quote(best) + "?"
	}
	return otherwise
}
