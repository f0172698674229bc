package quipu

// Limits of revisions.
const (
	RevisionsKept   = 10    // newest ones of a function that are remembered without any other reason
	RevisionsPinned = 1_000 // former ones that are remembered for executions only: a deploy that would make them more is refused
	PartsMax        = 10    // revisions of a function that share its traffic
	AliasesMax      = 32    // of a function
)

// HeaderRevision chooses the revision that a call goes to, by its name, number or alias; in a reply it is the one that
// answered.
const HeaderRevision = "Quipu-Revision"

// Revision is one that is remembered, and what is its part in the calls of its function.
type Revision struct {
	Function
	Percent int      `json:"percent"` // of the calls that name no revision
	Aliases []string `json:"aliases,omitempty"`
	Head    bool     `json:"head"` // its triggers are the function's: it is the newest with traffic
}

// Part is the share of a revision in the traffic of its function.
type Part struct {
	Revision string `json:"revision"`
	Percent  int    `json:"percent"`
}

// DeployOptions change what a deploy does.
type DeployOptions struct {
	// NoTraffic leaves the traffic of functions that are deployed already where it is, and all else that goes with a
	// deploy: nothing is removed, and topics stay as they were declared.
	NoTraffic bool
}
