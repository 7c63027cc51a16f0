// Package incident keeps the evidence of violations: one JSON file for each,
// in a folder that only root can read.
//
// A [Writer] belongs to one shim process. Its [Writer.Put] never blocks: it
// hands the incident to a bounded queue, and one goroutine writes. When the
// queue is full, or the disk refuses, the incident is lost, and the loss is
// counted: the next incident that is written says how many are missing before
// it (Incident.Lost), and so does the log. Where no next incident comes, a
// record of the loss alone is written (Action "lost").
//
// Files are named after their ID, which sorts by time, and appear complete or
// not at all (temporary file, fsync, rename). Several shims share a folder.
// It is bounded by number and bytes; the oldest go first, down to nine tenths
// of the bound at once, so that the folder is listed once in a thousand writes
// rather than for every one. The count between two listings is kept in a small
// file (.usage) that the writers share under flock(2); it is a hint: when it is
// missing, damaged or wrong, the folder is counted again.
//
// Limits: the bound may be passed by what several writers add while one of
// them deletes. An incident that waits in the queue when the shim is killed is
// gone, and nothing says so. Strings that are not UTF-8 are kept with their
// bad bytes written as \xNN. Fields longer than [MaxField] bytes are cut.
//
// What stands in an incident was chosen by the attacker: names may hold escape
// sequences. JSON escapes them; text for people goes through [Safe].
package incident
