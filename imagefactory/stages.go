package imagefactory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
)

// Stages are the stages in their order.
func Stages() []Stage { return slices.Clone(stageOrder) }

var stageOrder = []Stage{StageBuild, StageInspect, StageTest, StageSeal, StagePublish}

// stage is what one stage reads and does.
type stage struct {
	name  Stage
	reads []Stage // whose files it reads
	run   func(*job, context.Context, *record) error
}

// stages are in the order of stageOrder.
func stages() []stage {
	return []stage{
		{StageBuild, nil, (*job).runBuild},
		{StageInspect, []Stage{StageBuild}, (*job).runInspect},
		{StageTest, []Stage{StageBuild, StageInspect}, (*job).runTest},
		{StageSeal, []Stage{StageBuild, StageInspect, StageTest}, (*job).runSeal},
		{StagePublish, []Stage{StageSeal}, (*job).runPublish},
	}
}

// inputsOf are what a stage's result depends on: what the stages that it reads have
// left, and of the definition and the factory what they did not look at. What is sealed
// stays as it is when the key changes: a target may have it already, and it verifies or
// is sealed again.
func (j *job) inputsOf(s stage) map[string]string {
	inputs := map[string]string{}
	for _, from := range s.reads {
		if r := j.journal.stage(from); r != nil {
			maps.Copy(inputs, r.Outputs)
		}
	}
	switch s.name {
	case StageBuild:
		inputs["definition"] = j.digest
	case StageInspect: // which compares with the previous release, unless
		inputs["force"] = strconv.FormatBool(j.factory.Force)
	case StageTest:
		inputs["suite"] = j.suiteDigest()
	case StagePublish:
		if r := j.journal.same(); r != nil {
			inputs["previous"] = r.Previous
		}
	}
	return inputs
}

// suiteDigest stands for what an image is held to: the definition's demands, the
// checks of its profile and the waivers that hold today.
func (p *product) suiteDigest() string {
	suite := struct {
		Profile  string
		Checks   []string
		FailFrom any
		Params   any
		Waived   []string
	}{Profile: p.suite.Profile.Name, FailFrom: p.suite.FailFrom, Params: p.suite.Params}
	for _, c := range p.suite.Profile.Checks {
		suite.Checks = append(suite.Checks, c.ID)
	}
	for _, w := range p.def.Test.Waivers {
		if p.factory.now().Before(w.until()) {
			suite.Waived = append(suite.Waived, w.Check)
		}
	}
	data, err := json.Marshal(suite)
	if err != nil {
		return "" // and the tests are done again: no digest is recorded as ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
