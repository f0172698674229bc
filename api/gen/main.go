// Gen turns the protos of this project into Go, without protoc: it compiles them and hands them to the plugins
// protoc-gen-go and protoc-gen-go-grpc, in the versions that go.mod of this folder pins. After go mod download it
// needs no network. It is a module of its own, so that the product does not depend on compilers.
//
//	go -C api/gen run . log/v1/log.proto
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/pluginpb"
)

const root = ".." // api

var plugins = []string{"protoc-gen-go", "protoc-gen-go-grpc"}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(protos []string) error {
	c := protocompile.Compiler{Resolver: &protocompile.SourceResolver{ImportPaths: []string{root}}, SourceInfoMode: protocompile.SourceInfoStandard}
	files, err := c.Compile(context.Background(), protos...)
	if err != nil {
		return err
	}
	ask := &pluginpb.CodeGeneratorRequest{FileToGenerate: protos, Parameter: proto.String("paths=source_relative")}
	for _, f := range files {
		ask.ProtoFile = append(ask.ProtoFile, protoutil.ProtoFromFileDescriptor(f))
	}
	for _, plugin := range plugins {
		if err := generate(plugin, ask); err != nil {
			return fmt.Errorf("%s: %w", plugin, err)
		}
	}
	return nil
}

// generate runs a plugin and writes what it makes.
func generate(plugin string, ask *pluginpb.CodeGeneratorRequest) error {
	in, err := proto.Marshal(ask)
	if err != nil {
		return err
	}
	cmd := exec.Command("go", "tool", plugin)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return err
	}
	var made pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &made); err != nil {
		return err
	}
	if made.Error != nil {
		return fmt.Errorf("%s", made.GetError())
	}
	for _, f := range made.File {
		if err := os.WriteFile(filepath.Join(root, f.GetName()), []byte(f.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
