package gateway

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/sdk"
)

func (g *Gateway) getNode(a *ask) error { return a.reply(g.opt.Node()) }

func (g *Gateway) getOpenAPI(a *ask) error {
	a.Header().Set("Content-Type", jsonType)
	_, err := a.Write(g.openAPI)
	return err
}

func listRoutes(a *ask) error {
	items := []sdk.Route{}
	for _, fn := range a.ns.Functions() {
		for _, t := range fn.Spec.Triggers {
			if t.HTTP != nil {
				items = append(items, sdk.Route{Path: t.HTTP.Path, Methods: t.HTTP.Methods, Function: fn.Name})
			}
		}
	}
	return a.reply(sdk.Page[sdk.Route]{Items: items})
}

func listInstances(a *ask) error { return a.reply(page(a.ns.Instances())) }

func listCalls(a *ask) error {
	limit, err := a.integer("limit", listLimitMax, listLimitMax)
	if err != nil {
		return err
	}
	calls, err := a.ns.Calls(a.Context(), a.query.Get("function"), limit)
	if err != nil {
		return err
	}
	return a.reply(page(calls))
}

func getCall(a *ask) error {
	call, err := a.ns.Call(a.Context(), a.values["call"])
	if err != nil {
		return err
	}
	return a.reply(call)
}

func getCallSlice(a *ask) error {
	slice, err := a.ns.Slice(a.Context(), a.values["call"])
	if err != nil {
		return err
	}
	return a.reply(slice)
}

// deploy reads all of the bundle before anything happens.
func deploy(a *ask) error {
	app := a.query.Get("app")
	if app == "" {
		return usage("the query lacks app=NAME")
	}
	if kind, _, _ := strings.Cut(a.Request.Header.Get("Content-Type"), ";"); kind != bundleType {
		return &quipu.Error{Code: quipu.CodeBadJSON, Text: "the body must be " + bundleType + ", not " + quote(kind),
			Hint: "quipu deploy DIR makes and sends one"}
	}
	body, err := a.readBody()
	if err != nil {
		return err
	}
	traffic := true
	if a.query.Has("traffic") {
		if traffic, err = a.boolean("traffic"); err != nil {
			return err
		}
	}
	functions, err := a.ns.Deploy(a.Context(), app, body, quipu.DeployOptions{NoTraffic: !traffic})
	if err != nil {
		return err
	}
	return a.reply(page(functions))
}

func listFunctions(a *ask) error { return a.reply(page(a.ns.Functions())) }

func getFunction(a *ask) error {
	fn, err := a.ns.Function(a.values["function"])
	if err != nil {
		return err
	}
	return a.reply(fn)
}

func listAllRevisions(a *ask) error {
	all := []quipu.Revision{}
	for _, f := range a.ns.Functions() {
		list, err := a.ns.Revisions(f.Name)
		if err != nil && quipu.CodeOf(err) != quipu.CodeNoFunction { // it is gone meanwhile
			return err
		}
		all = append(all, list...)
	}
	return a.reply(page(all))
}

func listRevisions(a *ask) error { return a.replyRevisions(a.ns.Revisions(a.values["function"])) }

func (a *ask) replyRevisions(list []quipu.Revision, err error) error {
	if err != nil {
		return err
	}
	return a.reply(page(list))
}

func splitTraffic(a *ask) error {
	var body sdk.Split
	if err := a.object(&body); err != nil {
		return err
	}
	return a.replyRevisions(a.ns.Split(a.Context(), a.values["function"], body.Parts))
}

func rollback(a *ask) error {
	var body sdk.Rollback
	if err := a.object(&body); err != nil {
		return err
	}
	return a.replyRevisions(a.ns.Rollback(a.Context(), a.values["function"], body.Revision))
}

func putAlias(a *ask) error {
	var body sdk.Alias
	if err := a.object(&body); err != nil {
		return err
	}
	if body.Revision == "" {
		return usage("the body lacks the revision")
	}
	return a.setAlias(body.Revision)
}

func removeAlias(a *ask) error { return a.setAlias("") }

func (a *ask) setAlias(revision string) error {
	if err := a.ns.SetAlias(a.Context(), a.values["function"], a.values["alias"], revision); err != nil {
		return err
	}
	a.WriteHeader(http.StatusNoContent)
	return nil
}

func removeFunction(a *ask) error {
	if err := a.ns.Remove(a.Context(), a.values["function"]); err != nil {
		return err
	}
	a.WriteHeader(http.StatusNoContent)
	return nil
}

func (g *Gateway) callFunction(a *ask) error {
	_, path, _ := strings.Cut(strings.TrimPrefix(a.Request.URL.EscapedPath(), adminPrefix+"/functions/"), "/call")
	seen := &watcher{ResponseWriter: a.ResponseWriter}
	in, r := g.enter(seen, a.Request, a.values["function"], a.Request.Header.Get(quipu.HeaderTrace) == quipu.TraceKeep)
	defer in.leave()
	c := CallOf(r, a.values["function"], path, "cli")
	if g.opt.Token != "" && TokenEqual(bearerOf(a.Request), g.opt.Token) {
		c.Header.Del("Authorization") // it was for us: no function is to have it, and no record
	}
	g.call(seen, r, a.ns, c)
	return nil
}

func page[T any](items []T) sdk.Page[T] {
	if items == nil {
		items = []T{} // [] and not null
	}
	return sdk.Page[T]{Items: items}
}

// integer reads a parameter from 1 to most.
func (a *ask) integer(name string, byDefault, most int) (int, error) {
	text := a.query.Get(name)
	if text == "" {
		return byDefault, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, usage("%s is %s; it must be a number from 1 to %d", name, quote(text), most)
	}
	return n, nil
}

// boolean reads a parameter; its name alone means yes.
func (a *ask) boolean(name string) (bool, error) {
	if !a.query.Has(name) {
		return false, nil
	}
	switch text := a.query.Get(name); text {
	case "", "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	default:
		return false, usage("%s is %s; it must be true or false", name, quote(text))
	}
}

// seq reads a parameter.
func (a *ask) seq(name string, byDefault quipu.Seq) (quipu.Seq, error) {
	text := a.query.Get(name)
	if text == "" {
		return byDefault, nil
	}
	return quipu.ParseSeq(text)
}
