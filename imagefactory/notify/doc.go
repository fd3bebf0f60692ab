// Package notify tells others what came of a night of an image factory.
//
//	message := notify.Finished(report, time.Now())
//	err := (&notify.Webhook{URL: url, Secret: secret}).Send(ctx, message)
//	err = (&notify.Command{Args: []string{"/usr/local/bin/tell"}}).Run(ctx, message)
//
// A message is JSON: {"type": "night.finished", "timestamp": RFC 3339, "data": REPORT},
// where the report is what imagefactory/report.schema.json describes, with texts of at
// most 500 characters and without the lists of files. Its ID stays the same however
// often it is sent, so that a receiver can tell a repetition.
//
// # Webhook
//
// The message is posted as Standard Webhooks 1.0.0 has it (standardwebhooks.com): the
// headers webhook-id, webhook-timestamp (seconds since 1970) and webhook-signature,
// which is "v1," and the base64 of the HMAC-SHA-256 of "ID.TIMESTAMP.BODY". [Verify] is
// the receiver's side; libraries of other languages exist. The secret is 24 to 64
// random bytes, written as "whsec_" and their base64; several may be given while
// one follows another. The address is https, or http on this machine's loopback: a
// name that leads elsewhere is refused when it is dialled. Redirects are not followed.
//
// Any status of 2xx is success. Network errors, 408, 425, 429 and 5xx are tried again,
// five times in all, after 1, 2, 4 and 8 seconds and up to a half more, or what
// Retry-After says in seconds, up to a minute; 410 is [ErrGone]; all else fails at once.
// The body of the answer is not looked at.
//
// # Command
//
// The program is run by its arguments, without a shell, in a process group of its own,
// with the message on its standard input and the caller's environment and directory.
// Its end is waited for up to a minute; then the group is sent SIGTERM, and SIGKILL five
// seconds later. What it writes is in the error, up to 1 KiB from the end.
//
// Errors name neither the secret nor a password in the address. Nothing is kept between
// calls; values may be used concurrently while they are not changed.
package notify
