// Package notify listens to the seccomp notifications of one container's
// processes. It knows no policy.
package notify
