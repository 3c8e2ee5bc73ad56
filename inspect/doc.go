// Package inspect tells what a node knows of itself: who is connected, who listens
// to what and how that is decided, what was refused, how far the change stream has
// got, and why somebody did not get a change. It only looks: nothing that it does
// changes what clients see.
//
// Server answers under /sluice/v1, to who holds the project's secret key; the
// console calls it directly. `sluice why`, `sluice doctor` and the console show
// what it says. No key and no token is in it.
package inspect
