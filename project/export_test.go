package project

// For tests.
var (
	SplitStatements = splitStatements
	ParseDotenv     = parseDotenv
)
