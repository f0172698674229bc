package cloudevent

import (
	"encoding/base64"
	"encoding/json"

	"github.com/quipu-run/quipu"
)

// Content is what was published in an envelope, and its type. CodeCloudEvent.
func Content(event []byte) (contentType string, data []byte, err error) {
	var e map[string]json.RawMessage
	if err := json.Unmarshal(event, &e); err != nil || e == nil {
		return "", nil, &quipu.Error{Code: quipu.CodeCloudEvent, Op: "event.read", Text: "an event to be delivered is no JSON object", Err: err}
	}
	contentType = textOf(e["datacontenttype"])
	data, err = Data(e, contentType)
	return contentType, data, err
}

// Data is the bytes that were published: JSON as it is, text without its quotes, base64 decoded.
func Data(e map[string]json.RawMessage, contentType string) ([]byte, error) {
	if encoded, ok := e["data_base64"]; ok {
		raw, err := base64.StdEncoding.DecodeString(textOf(encoded))
		if err != nil {
			return nil, &quipu.Error{Code: quipu.CodeCloudEvent, Op: "event.read", Text: "data_base64 of an event to be delivered is no base64", Err: err}
		}
		return raw, nil
	}
	given, ok := e["data"]
	switch {
	case !ok || string(given) == "null":
		return nil, nil
	case contentType == "" || IsJSON(contentType) || IsCloudEvent(contentType) || given[0] != '"':
		return given, nil
	}
	return []byte(textOf(given)), nil
}

// textOf is "" for what is no string.
func textOf(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}
