package scrub

import "testing"

func TestWhatSaysWhoSomebodyIsIsTakenOut(t *testing.T) {
	for text, want := range map[string]string{
		// Dapr's own tests
		"well hello there, my phone number is +2222222222": "well hello there, my phone number is <PHONE_NUMBER>",
		"well hello there, my email is test@test.com":      "well hello there, my email is <EMAIL_ADDRESS>",
		"well hello there from 10.8.9.1":                   "well hello there from <IP>",
		"well hello there":                                 "well hello there",

		"jürgen.o'neil+x@mail.example.co.uk, please":     "<EMAIL_ADDRESS>, please",
		"+49 (0)30 123-4567 or (030) 1234 5678":          "<PHONE_NUMBER> or <PHONE_NUMBER>",
		"call 555-123-4567.":                             "call <PHONE_NUMBER>.",
		"card 4111 1111 1111 1111, not 4111111111111112": "card <CREDIT_CARD>, not 4111111111111112",
		"amex 378282246310005":                           "amex <CREDIT_CARD>",
		"IBAN DE89 3704 0044 0532 0130 00":               "IBAN <IBAN>",
		"GB82WEST12345698765432":                         "<IBAN>",
		"ssn 078-05-1120":                                "ssn <SSN>",
		"mac 00:1b:63:84:45:e6":                          "mac <MAC_ADDRESS>",
		"at 2001:db8::8a2e:370:7334 and ::1":             "at <IP> and <IP>",
		"v6 fe80::1.":                                    "v6 <IP>",
		"12 Main Street, 90210-1234":                     "<STREET_ADDRESS>, <ZIP_CODE>",
		"P.O. Box 77":                                    "<PO_BOX>",

		"on 2026-01-02 at 12:30, version 1.2.3, 3.14, 42, std::vector, 999.1.1.1": "on 2026-01-02 at 12:30, version 1.2.3, 3.14, 42, std::vector, 999.1.1.1",
		"": "",
	} {
		if got := Text(text); got != want {
			t.Errorf("%q\n got %q\nwant %q", text, got, want)
		}
	}
}
