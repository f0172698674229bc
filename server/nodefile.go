package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/quipu-run/quipu/sdk"
)

// nodeFile tells programs where the node listens. It is there exactly while the node serves.
const nodeFile = "node.json"

func (n *Node) describe() sdk.Node {
	return sdk.Node{
		PID: os.Getpid(), HTTP: n.listeners.address(mainDoor), DaprHTTP: n.listeners.address(daprDoor), DaprGRPC: n.listeners.address(grpcDoor),
		Version: n.cfg.Version, Data: n.cfg.Data, Started: n.started,
	}
}

// publish renames the node file into place, whole.
func (n *Node) publish() error {
	text, err := json.Marshal(struct {
		PID      int    `json:"pid"`
		HTTP     string `json:"http"`
		DaprHTTP string `json:"dapr_http"`
		DaprGRPC string `json:"dapr_grpc"`
		Version  string `json:"version"`
	}{n.info.PID, n.info.HTTP, n.info.DaprHTTP, n.info.DaprGRPC, n.info.Version})
	if err != nil {
		return err
	}
	temp := n.path(nodeFile + ".tmp")
	if err := os.WriteFile(temp, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", nodeFile, err)
	}
	return os.Rename(temp, n.path(nodeFile))
}

func (n *Node) unpublish() error {
	if n.log == nil {
		return nil // the directory is not ours: another node may have published there
	}
	if err := os.Remove(n.path(nodeFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", nodeFile, err)
	}
	return nil
}
