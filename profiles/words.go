package profiles

import "strconv"

func quote(text string) string { return strconv.Quote(text) }

// suggest names the word that was probably meant, or says otherwise.
func suggest(text string, words []string, otherwise string) string {
	best, distance := "", max(2, len(text)/3)+1
	for _, word := range words {
		if d := editDistance(text, word, distance); d < distance {
			best, distance = word, d
		}
	}
	if best == "" {
		return otherwise
	}
	return "did you mean " + quote(best) + "?"
}

// editDistance counts the insertions, deletions and replacements between two words (Levenshtein); limit or more is
// given as limit.
func editDistance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return min(row[len(b)], limit)
}
