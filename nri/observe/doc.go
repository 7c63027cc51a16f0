// Package observe tells the outside world what happens on a node: Prometheus metrics, Kubernetes Events, the node's
// condition, and JSON lines or OTLP logs.
//
// Violations come from containerd's event bus, where the shims publish them, and from the incident folder, in which
// each of them stands too: the bus is quick and forgets, the folder is slower and complete. The folder is looked
// through whenever it has changed; what stands there and did not come over the bus is told as if it had, once, also
// what happened while the plugin was away. What the plugin has seen is kept in its state folder.
//
// Nothing here decides anything, and nothing that decides waits for it. Each receiver ([Sink]) has a queue of its own;
// one that is full drops, and the drop is counted (stockade_findings_lost_total). The evidence stays in the folder.
//
// What the shims count (decisions, times of answers) is asked of them when metrics are scraped, by a few at a time and
// within a bound; a shim that does not answer is counted. Counters begin when the plugin begins: what a container
// decided before that, or after the last scrape that saw it, is not in them.
//
// Paths, command lines and names were chosen by the workload: they are never labels of a metric, and in text they are
// escaped and bounded. Labels are the names of profiles, which the admin chose, and words of Stockade's own; more than
// [MaxProfiles] names become "other".
//
// Limits: without containerd's socket, or where the bus did not bring it, a violation is told of when its file is there:
// at once where inotify(7) works, else some seconds later.
// What a sink had queued when the plugin was killed is not told by that sink. A node condition of a plugin that was
// killed stays as it was; its heartbeat does not. An incident that the shim could not write and the bus did not deliver is gone; the shim's own count of them
// (Incident.Lost) is added to the lost ones when its next one comes. Root on the node can publish what it likes. The
// incident folder is bounded: what was removed there before the plugin came back is not told.
package observe
