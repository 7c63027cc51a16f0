// Package nri is the plugin that tells containerd, for each container of a pod, which profile it gets.
//
// The shim is the authority: it holds where there is no plugin. The plugin adds what a shim cannot see, the labels of the
// pod, and reaches containers that do not run under our shim. It chooses and delivers; it enforces nothing.
//
// # What it does with a container
//
// [Rules.Judge] decides, from the pod, the container and the profiles alone:
//   - Under a runtime handler of ours: the choice goes to the shim as a signed statement (package selection). What cannot
//     be chosen (a tie, a store that is not whole, a profile that the pod may not have) is refused, with the reason. That
//     no profile matches is told to the shim too, whose configuration says what follows.
//   - Under another handler: refused where the namespace requires the shim. Else, if a profile is for it, NRI injects what
//     it can, the profile's system calls as a seccomp filter that answers EPERM, and the plugin says what is missing.
//   - In an exempt namespace nothing is ever refused or changed under another handler; under ours the shim decides.
//   - A pod that sets the annotations of the statement itself is refused.
//
// Init, sidecar and ephemeral containers are containers like any other. The pause container never comes here.
//
// # What NRI does when the plugin fails
//
// It goes on without it: a handler that does not answer within two seconds loses its plugin its connection, and the
// container is made without it (containerd/nri pkg/adaptation/plugin.go). So:
//   - The plugin validates too. The validator of a connection that was just closed fails, and with it the request during
//     which the handler timed out; and what another plugin has changed in our annotations is refused.
//   - Containers under our handler need none of this: without a statement the shim chooses by itself or refuses.
//   - For the others containerd has default_validator.required_plugins ([ContainerdConfig]): without the plugin no
//     container starts.
//
// Handlers make no system call and wait for nothing but a lock that is held for a few instructions: NRI holds one lock
// for the whole node while they run. What they decide from is a [View], kept in memory.
//
// # Limits
//
// NRI shows CRI containers only, not those of ctr, and nothing of exec. Labels are those that the pod had when its
// sandbox was made. A container under another handler that has a seccomp profile of its own (Localhost) keeps it.
package nri
