// Package devpg runs a private PostgreSQL cluster for one project or one test
// run: it finds server binaries or fetches them, makes the cluster, starts it on
// a loopback port and ends it with the process that started it. It knows
// nothing of what is inside the database.
package devpg
