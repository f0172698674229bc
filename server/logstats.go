package server

import (
	"context"

	"github.com/quipu-run/quipu/sdk"
)

// logStats is what the log holds, and did since the start.
func (n *Node) logStats(ctx context.Context) (sdk.LogStats, error) {
	books, err := n.log.Books(ctx)
	if err != nil {
		return sdk.LogStats{}, err
	}
	s := n.log.Stats()
	out := sdk.LogStats{
		Sync: n.cfg.Sync, Books: s.Books, Segments: s.Segments, SegmentBytes: s.SegmentBytes, SpareBytes: s.SpareBytes, IndexBytes: int64(s.IndexBytes),
		Appends: s.Appends, Appended: s.Records, Written: s.Bytes, Commits: s.Batches, Syncs: s.Syncs,
		Rolls: s.Rolls, Checkpoints: s.Checkpoints, Deleted: s.Deleted, Recycled: s.Recycled,
		Kept: s.Kept, Relocated: s.Relocated, Moved: s.Moved, QueueBytes: s.QueueBytes, DiskFree: s.DiskFree, ReadOnly: s.ReadOnly,
	}
	for _, b := range books {
		out.Records += b.Records
		out.LiveBytes += b.Bytes
	}
	return out, nil
}
