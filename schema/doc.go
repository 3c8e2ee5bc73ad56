// Package schema keeps what REST has to know of the catalog: relations with
// columns and keys, functions, and the roles that the login may become. A
// snapshot is immutable; a reload replaces it as a whole, and a reload that
// fails leaves the old one in force.
package schema
