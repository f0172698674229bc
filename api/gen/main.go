// Gen turns the protos of this project into Go, without protoc: it compiles them and hands them to the plugins
// protoc-gen-go and protoc-gen-go-grpc, in the versions that go.mod of this folder pins. After go mod download it
// needs no network. It is a module of its own, so that the product does not depend on compilers.
//
//	go -C api/gen run . log/v1/log.proto
package main

import (
	"bytes"
	"context"
	"errors"
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
	files, err := generate(protos)
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate answers the text of files by their names below root.
func generate(protos []string) (map[string]string, error) {
	c := protocompile.Compiler{Resolver: &protocompile.SourceResolver{ImportPaths: []string{root}}, SourceInfoMode: protocompile.SourceInfoStandard}
	compiled, err := c.Compile(context.Background(), protos...)
	if err != nil {
		return nil, err
	}
	ask := &pluginpb.CodeGeneratorRequest{FileToGenerate: protos, Parameter: proto.String("paths=source_relative")}
	for _, f := range compiled {
		ask.ProtoFile = append(ask.ProtoFile, protoutil.ProtoFromFileDescriptor(f))
	}
	files := map[string]string{}
	for _, plugin := range plugins {
		made, err := call(plugin, ask)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", plugin, err)
		}
		for _, f := range made {
			files[f.GetName()] = f.GetContent()
		}
	}
	return files, nil
}

// call runs a plugin.
func call(plugin string, ask *pluginpb.CodeGeneratorRequest) ([]*pluginpb.CodeGeneratorResponse_File, error) {
	in, err := proto.Marshal(ask)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "tool", plugin)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var made pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(out, &made); err != nil {
		return nil, err
	}
	if made.Error != nil {
		return nil, errors.New(made.GetError())
	}
	return made.File, nil
}
