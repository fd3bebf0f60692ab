package notify

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/opentelekomcloud/go-imagefactory/imagefactory"
)

// A Message is what is told.
type Message struct {
	ID   string // stays the same when it is sent again
	Body []byte // JSON
}

// maxText bounds each text of a report in a message, in characters.
const maxText = 500

// Finished is the message that a night has ended.
func Finished(report *imagefactory.Report, at time.Time) (Message, error) {
	r := *report
	r.SiteError = shortened(r.SiteError)
	r.Images = make([]imagefactory.ImageReport, len(report.Images))
	for n, i := range report.Images {
		i.Error, i.Held, i.Artifacts = shortened(i.Error), shortened(i.Held), []string{}
		i.Alarms, i.Notes = allShortened(i.Alarms), allShortened(i.Notes)
		i.Findings = append([]imagefactory.Finding(nil), i.Findings...)
		for f := range i.Findings {
			i.Findings[f].Text = shortened(i.Findings[f].Text)
		}
		i.Targets = append([]imagefactory.TargetReport(nil), i.Targets...)
		for t := range i.Targets {
			i.Targets[t].Error = shortened(i.Targets[t].Error)
		}
		r.Images[n] = i
	}
	body, err := json.Marshal(struct {
		Type      string               `json:"type"`
		Timestamp time.Time            `json:"timestamp"`
		Data      *imagefactory.Report `json:"data"`
	}{"night.finished", at.UTC(), &r})
	if err != nil {
		return Message{}, fmt.Errorf("cannot write a message: %w", err)
	}
	return Message{ID: "msg_" + rand.Text(), Body: body}, nil
}

func allShortened(texts []string) []string {
	var out []string
	for _, t := range texts {
		out = append(out, shortened(t))
	}
	return out
}

func shortened(s string) string {
	if len(s) <= maxText {
		return s
	}
	if r := []rune(strings.ToValidUTF8(s, "\uFFFD")); len(r) > maxText {
		return string(r[:maxText-1]) + "…"
	}
	return s
}
