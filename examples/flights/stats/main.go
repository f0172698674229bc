// Stats adds a batch of flights to sums per origin airport, hour of day and band of distance.
//
// It is ordinary code: it reads, adds and writes, through Dapr's HTTP API for state. Because the function is
// declared atomic, a crash at any line, or two instances at the same airport, lose and double nothing.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
)

type flight struct {
	Date     string `json:"date"` // 2001/01/01 00:47
	Delay    int    `json:"delay"`
	Distance int    `json:"distance"`
	Origin   string `json:"origin"`
}

// sums of an airport: "hour/band" -> flights, minutes of delay, then a histogram of delays.
type sums map[string][]int

var (
	bandEdges  = []int{250, 500, 1000, 2000}    // miles
	delayEdges = []int{-10, 0, 15, 30, 60, 120} // minutes
	state      = "http://127.0.0.1:" + os.Getenv("DAPR_HTTP_PORT") + "/v1.0/state/shared"
)

func main() {
	http.HandleFunc("POST /flights", handle)
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serve listens where the platform asks for it.
func serve() error {
	network, address := "unix", os.Getenv("QUIPU_SOCKET")
	if address == "" {
		network, address = "tcp", "127.0.0.1:"+os.Getenv("PORT")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return err
	}
	return http.Serve(l, nil)
}

func handle(w http.ResponseWriter, r *http.Request) {
	var flights []flight
	if err := json.NewDecoder(r.Body).Decode(&flights); err != nil {
		http.Error(w, "not a list of flights: "+err.Error(), http.StatusBadRequest)
		return
	}
	if err := add(flights); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintf(w, "{\"added\":%d}\n", len(flights))
}

func add(flights []flight) error {
	byOrigin := map[string][]flight{}
	for _, f := range flights {
		if len(f.Date) < 13 || f.Origin == "" {
			return fmt.Errorf("flight without date or origin: %+v", f)
		}
		byOrigin[f.Origin] = append(byOrigin[f.Origin], f)
	}
	keys := []string{"airports"}
	for origin := range byOrigin {
		keys = append(keys, "airport/"+origin)
	}
	values, err := getAll(keys)
	if err != nil {
		return err
	}
	changes := map[string]any{}
	var airports []string
	if raw := values["airports"]; raw != nil {
		if err := json.Unmarshal(raw, &airports); err != nil {
			return err
		}
	}
	known := len(airports)
	for origin, list := range byOrigin {
		s := sums{}
		if raw := values["airport/"+origin]; raw != nil {
			if err := json.Unmarshal(raw, &s); err != nil {
				return err
			}
		}
		for _, f := range list {
			s.add(f)
		}
		changes["airport/"+origin] = s
		if !slices.Contains(airports, origin) {
			airports = append(airports, origin)
		}
	}
	if len(airports) > known {
		slices.Sort(airports)
		changes["airports"] = airports
	}
	return setAll(changes)
}

func (s sums) add(f flight) {
	band, _ := slices.BinarySearch(bandEdges, f.Distance+1) // the first edge above the distance
	cell := fmt.Sprintf("%s/%d", f.Date[11:13], band)
	row := s[cell]
	if row == nil {
		row = make([]int, 2+len(delayEdges)+1)
	}
	late, _ := slices.BinarySearch(delayEdges, f.Delay+1)
	row[0]++
	row[1] += f.Delay
	row[2+late]++
	s[cell] = row
}

// getAll reads many keys in one request.
func getAll(keys []string) (map[string]json.RawMessage, error) {
	var items []struct {
		Key  string          `json:"key"`
		Data json.RawMessage `json:"data"`
	}
	if err := post("/bulk", map[string]any{"keys": keys}, &items); err != nil {
		return nil, err
	}
	values := map[string]json.RawMessage{}
	for _, item := range items {
		values[item.Key] = item.Data
	}
	return values, nil
}

// setAll writes many keys in one request.
func setAll(changes map[string]any) error {
	var items []map[string]any
	for key, value := range changes {
		items = append(items, map[string]any{"key": key, "value": value})
	}
	return post("", items, nil)
}

func post(path string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	r, err := http.NewRequest("POST", state+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("dapr-api-token", os.Getenv("DAPR_API_TOKEN"))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("state%s: %s: %s", path, resp.Status, answer)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}
