package policytest

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// The part of SARIF 2.1.0 that tools which show findings read.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool    sarifTool     `json:"tool"`
		Results []sarifResult `json:"results"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name           string      `json:"name"`
		InformationURI string      `json:"informationUri"`
		Rules          []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID               string       `json:"id"`
		ShortDescription sarifText    `json:"shortDescription"`
		HelpURI          string       `json:"helpUri"`
		Default          sarifDefault `json:"defaultConfiguration"`
	}
	sarifDefault struct {
		Level string `json:"level"`
	}
	sarifText struct {
		Text string `json:"text"`
	}
	sarifResult struct {
		RuleID    string          `json:"ruleId"`
		RuleIndex int             `json:"ruleIndex"`
		Level     string          `json:"level"`
		Message   sarifText       `json:"message"`
		Locations []sarifLocation `json:"locations"`
	}
	sarifLocation struct {
		Physical sarifPhysical `json:"physicalLocation"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   sarifRegion   `json:"region"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine int `json:"startLine"`
	}
)

const auditPage = "https://github.com/gatehouse-caddy/gatehouse/blob/main/docs/audit.md"

// writeSARIF leaves the findings where tools look for them. All checks are
// listed, those that found nothing too.
func writeSARIF(file string, findings []finding) error {
	driver := sarifDriver{Name: "gatehouse", InformationURI: auditPage}
	index := map[string]int{}
	for n, c := range checks {
		index[c.id] = n
		driver.Rules = append(driver.Rules, sarifRule{c.id, sarifText{c.title}, auditPage, sarifDefault{c.level.String()}})
	}
	results := make([]sarifResult, 0, len(findings))
	for _, f := range findings {
		at := sarifPhysical{sarifArtifact{filepath.ToSlash(f.file)}, sarifRegion{f.line}}
		results = append(results, sarifResult{f.check.id, index[f.check.id], f.check.level.String(), sarifText{f.text}, []sarifLocation{{at}}})
	}
	data, err := json.MarshalIndent(sarifLog{
		Schema: "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json", Version: "2.1.0",
		Runs: []sarifRun{{sarifTool{driver}, results}},
	}, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(data, '\n'), 0o644) //nolint:gosec // a report for whoever builds
}
