package gateway

import (
	"github.com/quipu-run/quipu"
)

func actorRoutes() []adminRoute {
	return []adminRoute{
		{id: "listActors", method: "GET", path: "/actors", summary: "Actors that live in an instance now, by type and id: where, since when, and the token of their lease. next, if set, has afterType and afterId of the following page.",
			query:  []param{{"type", "string", "only actors of this type"}, {"afterType", "string", "go on after this actor"}, {"afterId", "string", "likewise"}, limitParam},
			status: 200, reply: jsonType, shape: quipu.ActorPage{}, codes: []quipu.Code{quipu.CodeUsage}, serve: listActors},
	}
}

func listActors(a *ask) error {
	limit, err := a.integer("limit", quipu.ActorsListMax, quipu.ActorsListMax)
	if err != nil {
		return err
	}
	page, err := a.ns.Actors(a.Context(), quipu.ActorList{Type: a.query.Get("type"), Limit: limit,
		After: quipu.ActorKey{Type: a.query.Get("afterType"), ID: a.query.Get("afterId")}})
	if err != nil {
		return err
	}
	return a.reply(page)
}
