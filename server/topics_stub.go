package server

import "github.com/quipu-run/quipu"

type topicAPI interface{ quipu.Topics }

type stub struct{ topicAPI }
