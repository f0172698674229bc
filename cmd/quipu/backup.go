package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/quipu-run/quipu"
	"github.com/quipu-run/quipu/internal/durable"
	"github.com/quipu-run/quipu/sdk"
	"github.com/quipu-run/quipu/server"
)

func (c *cli) backupCommands() []*cobra.Command {
	return []*cobra.Command{c.backupCommand(), c.restoreCommand()}
}

func (c *cli) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use: "backup [FILE | DIR/ | -]", Short: "Copy all that a running node has, to an archive or a folder",
		Long: "Copy all that a running node has acknowledged, as of now, while it goes on. To a file: an archive (tar), by default quipu-TIME.tar. " +
			"To a folder: a name that ends with a slash. To standard output: -.\nquipu restore makes a data directory of it.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			to := append(args, "quipu-"+time.Now().UTC().Format("20060102T150405Z")+".tar")[0]
			node, err := c.client()
			if err != nil {
				return err
			}
			archive, err := node.Backup(cmd.Context())
			if err != nil {
				return err
			}
			defer archive.Close()
			return c.keepBackup(cmd.Context(), archive, to)
		},
	}
}

// keepBackup writes an archive to where the user wants it.
func (c *cli) keepBackup(ctx context.Context, archive io.Reader, to string) error {
	switch {
	case to == "-":
		_, err := io.Copy(c.out, c.counted(archive))
		return err
	case strings.HasSuffix(to, "/"):
		b, err := server.Unpack(ctx, c.counted(archive), to)
		if err != nil {
			return err
		}
		return c.saidBackup(to, b)
	}
	err := writeWhole(to, func(f io.Writer) error {
		_, err := io.Copy(f, c.counted(archive))
		return err
	})
	if err != nil {
		return fmt.Errorf("write %s: %w", to, err)
	}
	b, err := server.Inspect(server.Restoring{From: to})
	if err != nil {
		return err
	}
	return c.saidBackup(to, b)
}

func (c *cli) saidBackup(to string, b sdk.Backup) error {
	if c.output != "table" {
		return c.show(b)
	}
	_, err := fmt.Fprintf(c.out, "%s has everything up to %s\n", to, b.Tail)
	c.note("quipu restore %s --data DIR makes a node of it", to)
	return err
}

// writeWhole makes a file of what write writes, which is there whole and durable, or not at all.
func writeWhole(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.part")
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return durable.Sync(filepath.Dir(path))
}

// counted tells how much has come, now and then.
func (c *cli) counted(r io.Reader) io.Reader { return &counter{r: r, tell: c.note, told: time.Now()} }

type counter struct {
	r    io.Reader
	n    int64
	tell func(format string, args ...any)
	told time.Time
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if time.Since(c.told) > time.Second {
		c.told = time.Now()
		c.tell("%d MiB", c.n>>20)
	}
	return n, err
}

func (c *cli) restoreCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "restore BACKUP --data DIR", Short: "Make a data directory of a backup",
		Long: "Make a data directory of a backup: an archive, a folder, or - for an archive on standard input. Every file is checked; the directory is there whole or not at all.\n" +
			"With --upto SEQ it is as of that record: what came after is gone; what was trimmed or deleted after it stays so. --show tells which seqs that can be.",
		Args: cobra.ExactArgs(1),
	}
	data := cmd.Flags().String("data", "", "directory to make; it must not be there, or be empty")
	upto := cmd.Flags().String("upto", "", "the last record that is wanted; default: all")
	show := cmd.Flags().Bool("show", false, "only tell what the backup says of itself")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		r := server.Restoring{From: args[0], Data: *data, Stdin: cmd.InOrStdin()}
		if *upto != "" {
			if r.Upto, err = quipu.ParseSeq(*upto); err != nil {
				return err
			}
		}
		if *show {
			b, err := server.Inspect(r)
			if err != nil {
				return err
			}
			return c.showBackup(b)
		}
		if *data == "" {
			return &quipu.Error{Code: quipu.CodeUsage, Text: "restore needs the directory to make", Hint: "quipu restore " + args[0] + " --data DIR"}
		}
		return c.restore(cmd.Context(), r)
	}
	return cmd
}

func (c *cli) showBackup(b sdk.Backup) error {
	if c.output != "table" {
		return c.show(b)
	}
	_, err := fmt.Fprintf(c.out, "made       %s by version %s\nrestorable from %s\n           to   %s\n", b.Time.Format(time.RFC3339), b.Version, b.From, b.Tail)
	return err
}

func (c *cli) restore(ctx context.Context, r server.Restoring) error {
	told, files, bytes := time.Now(), 0, int64(0)
	r.Tell = func(_ string, size int64) {
		files, bytes = files+1, bytes+size
		if time.Since(told) > time.Second {
			told = time.Now()
			c.note("%d files, %d MiB", files, bytes>>20)
		}
	}
	b, err := server.Restore(ctx, r)
	if err != nil {
		return err
	}
	if c.output != "table" {
		return c.show(b)
	}
	_, err = fmt.Fprintf(c.out, "%s has everything up to %s\n", r.Data, b.Tail)
	c.note("quipu serve --data %s runs it", r.Data)
	return err
}
