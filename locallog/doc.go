// Package locallog is a quipu.Log on the disk of one machine.
//
// # Promise
//
// An append that was acknowledged is on disk: its batch was written and fdatasynced before the answer. After
// kill -9 or a power cut, Open finds every acknowledged record at its seq, and an append that was not
// answered is there whole or not at all. What was durable and is damaged is never skipped: Open, a read
// or Verify names the file and the offset. A failed write or fsync stops the log for good; only Open
// recovers. With Sync "os" the kernel decides when bytes reach the disk: a crash of the machine, not of the
// process, may then lose the newest acknowledged records.
//
// The package does not replicate, does not repair, and keeps events and values alike until they are trimmed. A segment goes
// when every record in it is trimmed; when few are not, they are moved, with their seqs, so that the disk holds about twice what is live.
// Up to Options.SpareBytesMax of deleted segments stay on the disk as spares, and are the first to go when it runs full.
//
// # Directory
//
//	LOCK         held while the log is open
//	MANIFEST     which segments there are, the term, and whether the log was closed cleanly
//	000001.seg   segments, zero-filled or written over
//	000001.kept  a kept segment: records that were moved, written once
//	000001.spare a deleted segment that waits to be written over
//	index/       Pebble without a WAL: the checkpoint of everything kept in memory
//
// # Segment
//
// A header page of 4096 bytes, then batches without gaps, then anything: zeros, or batches of the segment that the
// file was before, which have another epoch. Integers are little-endian.
//
//	 0  crc32c of bytes 4 to 4096        16  epoch, id u32 and random u32: tells its own
//	 4  magic "QSEG"                         bytes from older ones at the same place
//	 8  format version (u32)             24  size of the file (u64)
//	12  id (u32)                         32  zeros
//
// # Batch
//
// What one group commit writes: everything that waited, in one pwrite and one fdatasync. It counts
// whole or not at all. Always a multiple of 8 bytes.
//
//	 0  crc32c of all that follows       32  offset of this batch in the segment (u64)
//	 4  magic "QBAT"                     40  offset known synced when it was written (u64)
//	 8  size, header included (u32)      48  crc of the batch before it, 0 for the very first (u32)
//	12  count of records (u32)           52  zero (u32)
//	16  epoch of the segment             56  zero (u64)
//	24  seq of the first record          64  records
//
// In a kept segment the field at 52 is 1: the seqs of the records have gaps, and the crc at 48 is that of the batch before in the file.
//
// # Record
//
// Found by (offset, size) without its batch, so it carries all that a reader needs. Parsed by offset.
//
//	 0  crc32c of all that follows       32  kind (u8), version (u8), flags (u8), tags (u8)
//	 4  size, padding included (u32)     36  bytes of data (u32)
//	 8  seq                              40  if flag 1, producer: id u64, n u64, epoch u32
//	16  book                              .  if flag 2, condition: last u64, bytes of tag u16, tag
//	24  stamp                             .  each tag: bytes u16, tag
//	                                      .  data, then zeros up to a multiple of 8
//
// Flag 4 joins a record to the one before it: both belong to one AppendBatch and share its verdict. The verdict
// itself is not stored: it follows from the records before it, and shows in the index.
//
// # Recovery
//
// The last batch may be torn, in any of its pages, and that is no damage: it was never acknowledged. But
// bytes below any offset that is known to have been synced must be good. Open learns such offsets from the
// MANIFEST, from the index, and from every good batch further on. See docs/internals/log-format.md.
package locallog
