package quipu

// CodeInfo is the page of a code.
type CodeInfo struct {
	Title  string // what happened
	Status int    // HTTP status at our doors
	Why    string
	Next   string
}

// Codes is the closed list. A code is never given another meaning.
var Codes = map[Code]CodeInfo{
	CodeUsage:      {"bad argument", 400, "An argument, flag or field has a value that cannot be used.", "Read the message; quipu COMMAND --help lists what is accepted."},
	CodeDataInUse:  {"data directory in use", 409, "Another node has locked the data directory.", "Stop that node, or choose another directory with --data."},
	CodePortTaken:  {"port taken", 409, "Another program listens on the port.", "Choose another with the flag that the message names; 0 means any free port."},
	CodeDataFormat: {"unknown data format", 500, "The data directory was written by a newer version, or is not one of ours.", "Use the version that wrote it, or choose another directory with --data."},
	CodeInternal:   {"internal error", 500, "Something failed that should not. The node's log has the details.", "Look at the node's standard error; please report it."},
	CodeToken:      {"token missing or wrong", 401, "The node asks for a token and the request had none, or another one.", "Give --token or set QUIPU_TOKEN."},
	CodeNoNode:     {"no node answers", 503, "Nothing listens at the address, or it is not a node.", "Start one with quipu dev or quipu serve, or name another with --node."},
	CodeOrigin:     {"foreign host or origin", 403, "Without a token the node answers only requests addressed to loopback, and no foreign web page.", "Use http://127.0.0.1 or localhost; for other addresses start the node with --token-file."},
	CodeOpenListen: {"open listener without a token", 400, "A node that listens beyond loopback must ask for a token.", "Give --token-file FILE, or listen on 127.0.0.1."},
	CodeNotFound:   {"not found", 404, "There is nothing of that name or id.", "quipu ls shows what there is."},
	CodeStopping:   {"node is stopping", 503, "The node drains before it exits.", "Try again at another node, or when it is back."},

	CodeConflict:    {"conflict", 409, "Something committed in between changed what this depends on.", "Read again and retry."},
	CodeTrimmed:     {"trimmed", 410, "The records asked for were trimmed away.", "Read from after the trim point that the message names."},
	CodeNoBook:      {"no such book", 404, "No book has that name.", "quipu log ls lists the books."},
	CodeBookExists:  {"book exists", 409, "A book of that name is there already.", "Use it, or choose another name."},
	CodeRecord:      {"bad record", 400, "A record breaks a limit: 64 MiB of data, 32 tags, 256 bytes a tag, no empty tag.", "Store large values as state or files; shorten the tags."},
	CodeCorrupt:     {"log corrupt", 500, "Bytes on disk that were acknowledged as durable are not what was written.", "Stop using the disk; restore the data directory from a backup or another replica. The message names file and position."},
	CodeDiskFull:    {"disk nearly full", 507, "The free space fell under the reserve, so the node only reads.", "Free space on the disk of the data directory; writes go on by themselves."},
	CodeLogStopped:  {"log stopped", 503, "The log was closed, or an fsync failed: then nothing more is acknowledged.", "Look at the disk, then restart the node; it recovers everything acknowledged."},
	CodeUnknown:     {"outcome unknown", 500, "The node stopped while the commit was on its way to disk: it may or may not have happened.", "Ask again with the same Idempotency-Key, or read the state."},
	CodeSnapshotOld: {"snapshot too old", 409, "So much was committed since the first read that the transaction cannot be judged any more.", "Run it again; make it shorter."},
	CodeFenced:      {"producer fenced", 409, "A newer epoch of this producer exists, or its numbers have a gap.", "Start a new epoch, numbers from 1."},
	CodeOverloaded:  {"overloaded", 429, "A bounded queue is full.", "Wait and retry; send less at once."},
	CodeBookLocked:  {"platform book", 403, "Only the platform writes to this book.", "Create a book of your own: quipu log create NAME."},
	CodeQuota:       {"book full", 507, "The append would take the book beyond its quota.", "Trim the book, or give it a larger quota: quipu log set BOOK --quota."},

	CodeKey:       {"bad key", 400, "A key must have 1 to 1024 bytes and no ||.", "Choose another key."},
	CodeValueSize: {"value too large", 413, "A value may have up to 32 MiB.", "Split it, or store a file."},
	CodeETag:      {"etag mismatch", 409, "The key changed since its etag was read, or exists although it must not.", "Read it again, or send the new etag."},
	CodeETagForm:  {"malformed etag", 400, "An etag is the 16 hexadecimal digits that a read answered.", "Send it back unchanged."},
	CodeNoStore:   {"no such store", 404, "No state store has that name.", "Use shared, or statestore with the function whose keys are meant; a Dapr component's is state:NAME, or state:NAME:PREFIX if its keys have a prefix."},
	CodeTxSize:    {"transaction too large", 413, "A transaction may hold up to 64 MiB and 100,000 operations.", "Split it."},
	CodeTTL:       {"bad time to live", 400, "ttlInSeconds must be a whole number; -1 means for ever.", "Send a number of seconds."},

	CodeManifest:   {"bad manifest", 400, "quipu.yaml has a field, type or value that cannot be used. Nothing was deployed.", "Mend the line that the message names."},
	CodeSource:     {"source missing", 400, "A source is not there, or leaves the application's folder.", "Name a file or folder inside the folder of quipu.yaml."},
	CodeBuild:      {"build failed", 422, "The build command of a function failed. Nothing was deployed.", "The message has the output; mend it and deploy again."},
	CodeRoute:      {"routes collide", 409, "Two functions want the same requests.", "Change one of the two paths."},
	CodeNoTool:     {"tool missing", 422, "The node lacks the program that this runtime needs.", "Install it on the node, or use another runtime; quipu doctor lists them."},
	CodeBundleSize: {"application too large", 413, "The sources of an application may have 64 MiB.", "Leave out data and build results; .quipuignore names them."},
	CodeSandbox:    {"sandbox not to be had", 422, "A function requires a layer of the sandbox that is not active on this node.", "quipu doctor shows which are and why not; drop it from sandbox.require, or use a node that has it."},

	CodeNoFunction:  {"no such function", 404, "No function of that name is deployed.", "quipu ls functions shows what there is; quipu deploy DIR adds one."},
	CodeStart:       {"function does not start", 502, "No instance of the function began to listen in time, or it exited.", "quipu logs NAME shows its output. It must listen on $PORT or $QUIPU_SOCKET."},
	CodeTimeout:     {"timeout", 504, "The function did not answer within its timeout; its instance was stopped.", "Raise timeout in quipu.yaml, or make it faster."},
	CodeCrashed:     {"function crashed", 502, "The instance ended, or broke the connection, before it answered.", "quipu logs NAME shows its output."},
	CodeReplySize:   {"reply too large", 502, "A reply of an atomic function may have 6 MiB.", "Store the data as state and answer with the key."},
	CodeStreaming:   {"streaming refused", 502, "An atomic function's reply is held until its commit, so it cannot stream.", "Answer in one piece, or make the function plain."},
	CodeNoCall:      {"no open call", 409, "The operation came outside an open call of this atomic function, or names one that ended.", "Do it while the request is being handled, and send Quipu-Call-Id if there may be several."},
	CodeContention:  {"too much contention", 503, "The call could not commit within its timeout because others kept changing what it reads.", "Retry; use more keys; raise timeout."},
	CodeIdempotency: {"idempotency key reused", 422, "The same Idempotency-Key came before with another request.", "Use a new key for a new request."},
	CodeBusy:        {"too many calls", 429, "The function's queue is full.", "Retry after the time in Retry-After; raise scale.max, or scale.queue."},
	CodeDepth:       {"calls too deep", 508, "Functions called each other more than 16 deep.", "Look for a loop."},
	CodeReply:       {"malformed reply", 502, "The function answered with something that is not HTTP.", "quipu logs NAME shows its output."},
	CodeBudget:      {"budget used up", 429, "The budget of the function, or of the namespace, is used up for this month and stops calls from outside. Calls that nobody waits for, and events, wait until it ends.", "quipu budget ls shows it; raise it with quipu budget set, or wait for the next month (UTC)."},

	CodeUnhealthy: {"application is not well", 503, "The health check of an attached application fails, so it gets no calls and no events until it is well again.", "Look at what the application answers to its health check: GET /healthz, or the path of --app-health-check-path."},

	CodeCallQueue:     {"too many waiting calls", 429, "10,000 calls of the function wait or run already. Nothing was accepted.", "Retry after the time in Retry-After; raise scale.max, or cancel calls: quipu calls cancel ID."},
	CodeNoTrace:       {"no such trace", 404, "A node remembers the newest traces that it recorded, in memory: up to 256 that were asked for and 256 others.", "quipu call NAME --trace records one and shows it."},
	CodeCallEnded:     {"call has ended", 409, "Only a call that is queued, waits for its next attempt or runs can be cancelled.", "quipu calls get ID shows how it ended."},
	CodeCallCancelled: {"call cancelled", 410, "The call was cancelled, so it has no result.", "Make the call again if it is wanted after all."},
	CodeCallExpired:   {"call expired", 504, "The call did not succeed within async.maxAge of its function; no other attempt is made.", "quipu calls get ID shows what its last attempt failed with; raise async.maxAge, or scale.max if calls wait for room."},
	CodeCallPending:   {"call has not ended", 409, "The call was accepted, and has no result yet.", "Ask again later: GET /-/v1/calls/ID/result."},

	CodeNoRoute:  {"no route", 404, "No function has a trigger for this path.", "quipu ls routes shows the paths; add triggers: [{http: {path: /…}}]."},
	CodeMethod:   {"method not allowed", 405, "The path is there, but not for this method.", "Use a method of the Allow header."},
	CodeBodySize: {"body too large", 413, "The request's body is over the limit.", "Send less at once."},
	CodeBadJSON:  {"malformed request", 400, "The body is not what this path expects.", "The OpenAPI document at /-/v1/openapi.json has the shapes."},

	CodeNoRevision: {"no such revision", 404, "The function has no revision of that name, number or alias; the last 10 are kept, and those with traffic or an alias. From a route, only a revision with traffic or an alias can be chosen.", "quipu revisions NAME shows what there is; quipu alias NAME ALIAS REVISION opens one to the outside."},
	CodeRefused:    {"new revision refused", 422, "An instance of the new revision did not start, did not listen, or did not answer its health path in time. Nothing was deployed: what was live goes on.", "The message has the last lines that it printed; mend it and deploy again."},
	CodeSplit:      {"bad split of traffic", 400, "The parts of a split are whole percents of up to 10 revisions, each named once, and 100 in all.", "quipu traffic NAME REVISION=90 REVISION=10"},
	CodeNoFormer:   {"nothing to roll back to", 409, "No revision is remembered from which the newest with traffic took over.", "quipu revisions NAME shows what there is; quipu rollback NAME REVISION chooses one."},

	CodeTopicName:      {"bad topic name", 400, "A topic's name must be 1 to 249 bytes of UTF-8 without control characters, and not start with $.", "Choose another name."},
	CodeEventSize:      {"event too large", 413, "An event may have 1 MiB, envelope included.", "Store the data as state and publish its key."},
	CodeCloudEvent:     {"malformed CloudEvent", 400, "The event is not JSON, or lacks id, source, specversion 1.0 or type.", "Send a CloudEvent 1.0 in structured JSON, or data under another content type."},
	CodeNoTopic:        {"no such topic", 404, "Nothing was published to a topic of that name, and none declares it.", "quipu ls topics shows what there is; publishing makes a topic."},
	CodeNoSubscription: {"no such subscription", 404, "The topic has no durable subscription of that name.", "quipu get topic NAME lists them."},
	CodeSubscribed:     {"already subscribed", 409, "The topic has a subscription of that name, served by a function's trigger.", "Consume under another name, or remove the trigger."},
	CodeDelay:          {"bad delay", 400, "A message may be delayed by up to 366 days.", "Send a shorter delay, or none."},
	CodeTooMany:        {"too many", 400, "A request, topic or namespace has more of something than its limit.", "The message names the limit."},
	CodeSuperseded:     {"delivery superseded", 409, "The subscription was moved or removed while the call ran, so its outcome does not count.", "Nothing: what is to be delivered now will be."},
	CodeNoPubSub:       {"no such pub/sub", 404, "No pub/sub component has that name.", "Use pubsub."},
	CodeNoSecret:       {"no such secret", 404, "The secret store has no secret of that name.", "Add a line NAME=VALUE to secrets.env beside quipu.yaml and deploy again."},
	CodeAppCallback:    {"app answers no Dapr callback", 502, "The application did not say what it subscribes to in a form that Dapr knows.", "GET /dapr/subscribe must answer a JSON list, or 404; quipu logs NAME shows its output."},
	CodeComponent:      {"component cannot start", 422, "A Dapr component of the application is declared in a way that cannot be used, or what it needs is not there.", "Mend what the message names, or set ignoreErrors: true to go on without the component."},
	CodeDenied:         {"not allowed by a Configuration", 403, "A Configuration of the application does not allow this: its access control, its API lists or its scopes of secrets.", "Allow it in the Configuration beside the application, or ask as another application."},
	CodeBreakerOpen:    {"circuit breaker open", 503, "So much failed before that a Resiliency resource does not let anything through for a while.", "Wait and retry; the breaker's timeout says how long it stays open."},
	CodeOutside:        {"failed outside", 502, "What a component of the application asked for outside of the platform failed there.", "The message says what was answered; mend the request or the component, or try again."},
}
