// Package spelling finds the word that was probably meant.
package spelling

import "strings"

// Nearest returns the candidate that takes the fewest insertions, deletions and replacements to make from word
// (Levenshtein), when that is no more than a third of the word's length, and at most three. Case does not count.
func Nearest(word string, candidates []string) (string, bool) {
	best, limit := "", min(3, max(2, len(word)/3))
	word = strings.ToLower(word)
	for _, c := range candidates {
		if d := distance(word, strings.ToLower(c), limit); d <= limit && (best == "" || d < limit) {
			best, limit = c, d
		}
	}
	return best, best != ""
}

// distance is the number of edits, or limit+1 when it is more than limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
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
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return min(row[len(b)], limit+1)
}
