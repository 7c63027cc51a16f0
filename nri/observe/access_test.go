package observe

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"
	authentication "k8s.io/api/authentication/v1"
)

// guardedAccess is one whose API server knows the token "good", and whose shared budget is not filled up again.
func guardedAccess(t *testing.T) (*Access, func(peer, token string) int) {
	t.Helper()
	a := NewAccess(apiServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if !strings.HasSuffix(r.URL.Path, "/tokenreviews") {
			fmt.Fprint(w, `{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":true}}`)
			return
		}
		var review authentication.TokenReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{"authenticated":%v}}`, review.Spec.Token == "good")
	}), silent())
	a.asks = rate.NewLimiter(0, 20)
	h := a.Guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	return a, func(peer, token string) int {
		r := httptest.NewRequest("GET", "/metrics", nil)
		r.RemoteAddr = peer + ":40000"
		r.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
}

// A pod that asks with token after token uses up what is its own, not what there is for all.
func TestOnePeerCannotAskForAll(t *testing.T) {
	_, get := guardedAccess(t)
	codes := map[int]int{}
	for i := range 100 {
		codes[get("10.0.0.1", fmt.Sprint("bad", i))]++
	}
	if codes[401] == 0 || codes[429] == 0 {
		t.Errorf("the one peer got %v", codes)
	}
	if code := get("10.0.0.2", "good"); code != 200 {
		t.Errorf("the other one got %d", code)
	}
}

// Who was let in is asked about again although all that is left for others is used up, and is not forgotten over them.
func TestGoodTokenHasItsOwnBudget(t *testing.T) {
	a, get := guardedAccess(t)
	if code := get("10.0.0.2", "good"); code != 200 {
		t.Fatal(code)
	}
	for i := range 3 * maxSaid {
		a.remember(sha256.Sum256(fmt.Append(nil, i)), http.StatusUnauthorized, time.Now())
	}
	for k := range a.good {
		a.good[k] = answer{status: http.StatusOK} // it does not hold any more
	}
	a.asks = rate.NewLimiter(0, 0)
	if code := get("10.0.0.2", "other"); code != 429 {
		t.Errorf("a new token: %d", code)
	}
	if code := get("10.0.0.2", "good"); code != 200 {
		t.Errorf("the good token: %d", code)
	}
	if len(a.bad) > maxSaid || len(a.good) != 1 {
		t.Errorf("%d bad and %d good are remembered", len(a.bad), len(a.good))
	}
}
