package gateway

import "github.com/quipu-run/quipu"

func leaseRoutes() []adminRoute {
	return []adminRoute{
		{id: "listLeases", method: "GET", path: "/leases", summary: "Who owns what, by name, as the log has it: actors are owned by instances. next, if set, is the after of the following page.",
			query:  []param{{"prefix", "string", "only names that start with it, like actor/"}, {"after", "string", "go on after this name"}, limitParam},
			status: 200, reply: jsonType, shape: quipu.LeasePage{}, codes: []quipu.Code{quipu.CodeUsage}, serve: listLeases},
	}
}

func listLeases(a *ask) error {
	limit, err := a.integer("limit", quipu.LeasesListMax, quipu.LeasesListMax)
	if err != nil {
		return err
	}
	page, err := a.ns.Leases(a.Context(), quipu.LeaseList{Prefix: a.query.Get("prefix"), After: a.query.Get("after"), Limit: limit})
	if err != nil {
		return err
	}
	if page.Leases == nil {
		page.Leases = []quipu.Lease{}
	}
	return a.reply(page)
}
