package profiles

import "testing"

func TestMatchHolds(t *testing.T) {
	pod := MatchFacts{
		CRI: true, Image: "docker.io/library/redis:7.2", Namespace: "prod", Container: "redis",
		Labels: map[string]string{"app": "redis", "tier": "db"}, LabelsKnown: true,
	}
	noLabels := pod
	noLabels.Labels, noLabels.LabelsKnown = nil, false
	ctr := MatchFacts{Image: pod.Image}
	tests := []struct {
		name  string
		match *Match
		facts MatchFacts
		want  bool
	}{
		{"nothing given", nil, ctr, true},
		{"empty", &Match{}, MatchFacts{}, true},
		{"image", &Match{Images: []string{"docker.io/library/redis:7*"}}, pod, true},
		{"image without pod", &Match{Images: []string{"docker.io/library/redis:7*"}}, ctr, true},
		{"one of two", &Match{Images: []string{"x", "*redis*"}}, pod, true},
		{"other image", &Match{Images: []string{"docker.io/library/redis:6*"}}, pod, false},
		{"part of the image", &Match{Images: []string{"redis"}}, pod, false},
		{"no image", &Match{Images: []string{"*"}}, MatchFacts{CRI: true}, false},
		{"all", &Match{Images: []string{"*"}, Namespaces: []string{"prod"}, Containers: []string{"redis"}, Labels: map[string]string{"app": "redis"}}, pod, true},
		{"one of all fails", &Match{Images: []string{"*"}, Namespaces: []string{"dev"}, Containers: []string{"redis"}}, pod, false},
		{"container", &Match{Containers: []string{"init"}}, pod, false},
		{"namespace without pod", &Match{Namespaces: []string{"prod"}}, ctr, false},
		{"namespace named by ctr", &Match{Namespaces: []string{"prod"}}, MatchFacts{Namespace: "prod"}, false},
		{"label", &Match{Labels: map[string]string{"app": "nginx"}}, pod, false},
		{"missing label", &Match{Labels: map[string]string{"x": ""}}, pod, false},
		{"labels unknown", &Match{Labels: map[string]string{"app": "redis"}}, noLabels, false},
	}
	for _, tt := range tests {
		got, why := tt.match.Holds(tt.facts)
		if got != tt.want || got == (why != "") {
			t.Errorf("%s: got %v (%s)", tt.name, got, why)
		}
	}
}

func TestImageMatches(t *testing.T) {
	for _, tt := range []struct {
		pattern, image string
		want           bool
	}{
		{"a", "a", true},
		{"a", "ab", false},
		{"*", "a/b:c", true},
		{"a*", "a", true},
		{"*a", "ba", true},
		{"a*a", "a", false},
		{"a*a", "aa", true},
		{"a*b*c", "aXbYc", true},
		{"a*b*c", "acb", false},
		{"**", "", true},
		{"a**b", "ab", true},
		{"*ab*ab*", "xaby", false},
	} {
		if got := imageMatches(tt.pattern, tt.image); got != tt.want {
			t.Errorf("%s on %s: %v", tt.pattern, tt.image, got)
		}
	}
}
