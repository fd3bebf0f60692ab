package imstest

import (
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const maxFileBytes = 128 << 30

var (
	nameForm   = regexp.MustCompile(`^[A-Za-z0-9._-]([A-Za-z0-9._ -]*[A-Za-z0-9._-])?$`)
	tagForm    = regexp.MustCompile(`^[A-Za-z0-9_-]{1,36}(\.[A-Za-z0-9_-]{0,43})?$`)
	extension  = regexp.MustCompile(`^[a-z0-9_.:-]{1,255}$`)
	osVersions = regexp.MustCompile(`^(Debian GNU/Linux|Ubuntu|CentOS|openSUSE|SUSE Linux Enterprise Server|Redhat|Oracle Linux Server release|Fedora|EulerOS|openEuler|CoreOS|Rocky Linux|Windows Server|Other Linux)\b.*`)
)

// creation is the body of creating_an_image.rst, "Parameters for creating an image using
// an image file uploaded to the OBS bucket", and of importing_an_image_file_quickly.rst.
type creation struct {
	Name         string   `json:"name"`
	Description  string   `json:"description"`
	OSType       *string  `json:"os_type"`
	OSVersion    string   `json:"os_version"`
	ImageURL     string   `json:"image_url"`
	MinDisk      int64    `json:"min_disk"`
	IsConfig     bool     `json:"is_config"`
	CMKID        string   `json:"cmk_id"`
	Tags         []string `json:"tags"`
	ImageTags    []tag    `json:"image_tags"`
	Type         string   `json:"type"`
	Enterprise   string   `json:"enterprise_project_id"`
	MaxRAM       int64    `json:"max_ram"`
	MinRAM       int64    `json:"min_ram"`
	DataImages   []any    `json:"data_images"`
	IsQuick      *bool    `json:"is_quick_import"`
	Firmware     string   `json:"hw_firmware_type"`
	Architecture *string  `json:"architecture"`
}

type tag struct{ Key, Value string }

func (c *creation) check(quick bool) error {
	switch {
	case c.Name == "":
		return refuse("IMG.0013", "The image name is not specified.")
	case utf8.RuneCountInString(c.Name) > 128:
		return refuse("IMG.0002", "The image name contains more than 128 characters.")
	case !nameForm.MatchString(c.Name):
		return refuse("IMG.0003", "The image name format is invalid.")
	case utf8.RuneCountInString(c.Description) > 1024:
		return refuse("IMG.0004", "The description contains more than 1024 characters.")
	case strings.ContainsAny(c.Description, "\r\n<>"):
		return refuse("IMG.0054", "The image description format is invalid.")
	case c.MinDisk < 1 || c.MinDisk > 1024 || c.MinRAM < 0 || c.MaxRAM < 0:
		return refuse("IMG.0055", "The memory or disk size is invalid.")
	case c.OSVersion == "" && quick, c.OSVersion != "" && !osVersions.MatchString(c.OSVersion):
		return refuse("IMG.0056", "Invalid OS version.")
	case c.Tags != nil && c.ImageTags != nil,
		c.OSType != nil && (quick || !slices.Contains([]string{"Linux", "Windows", "Other"}, *c.OSType)),
		c.IsQuick != nil && quick, c.Architecture != nil && (!quick || !slices.Contains([]string{"x86", "arm"}, *c.Architecture)),
		!slices.Contains([]string{"", "bios", "uefi"}, c.Firmware):
		return refuse("IMG.0001", "The request message format is invalid.")
	case !slices.Contains([]string{"", "ECS", "BMS", "FusionCompute", "IsoImage", "Ironic"}, c.Type), quick && !slices.Contains([]string{"", "ECS", "BMS"}, c.Type):
		return refuse("IMG.0024", "The image type in the request is incorrect.")
	}
	for _, t := range c.Tags {
		if !tagForm.MatchString(t) {
			return refuse("IMG.0001", "The request message format is invalid.")
		}
	}
	return nil
}

// object looks at the file of an import. The quick one takes RAW and ZVHD2 alone.
func (s *Server) object(url string, quick bool) (int64, error) {
	missing := refuse("IMG.0057", "The image file is empty, not found, or in incorrect format, or you do not have enough permission to access the file.")
	bucket, key, ok := strings.Cut(url, ":")
	if !ok || bucket == "" || key == "" {
		return 0, refuse("IMG.0017", "The URL format is incorrect.")
	}
	if st, err := fs.Stat(s.Objects, bucket); err != nil || !st.IsDir() {
		return 0, refuse("IMG.0069", "The specified bucket cannot be accessed.")
	}
	f, err := s.Objects.Open(bucket + "/" + key)
	if err != nil {
		return 0, missing
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() == 0 {
		return 0, missing
	}
	if st.Size() > maxFileBytes && !quick {
		return 0, refuse("IMG.0059", "The size of the image file exceeds the maximum allowed.")
	}
	magic := make([]byte, 4)
	_, _ = io.ReadFull(f, magic) // a shorter file has another magic
	isQcow2 := string(magic) == "QFI\xfb"
	if strings.HasSuffix(key, ".qcow2") && !isQcow2 || quick && isQcow2 {
		return 0, missing
	}
	return st.Size(), nil
}

func (s *Server) create(r *http.Request, project string, quick bool) (int, any, error) {
	var in creation
	if err := decode(r, &in); err != nil {
		return 0, nil, err
	}
	if err := in.check(quick); err != nil {
		return 0, nil, err
	}
	size, err := s.object(in.ImageURL, quick)
	if err != nil {
		return 0, nil, err
	}
	tasks := 0
	for _, j := range s.jobs {
		if !j.done {
			tasks++
		}
	}
	if most := s.Tasks; tasks >= max(most, 1) && most > 0 || tasks >= 40 {
		return 0, nil, refuse("IMG.0060", "The number of tasks exceeds the flow control limit.")
	}
	if s.used(project) >= s.limit() {
		return 0, nil, refuse("IMG.0015", "The number of private images has reached the maximum allowed.")
	}
	i := &image{id: uuid(), owner: project, created: time.Now(), bytes: size, attributes: in.attributes()}
	j := &job{project: project, id: randomID(), imageID: i.id, name: in.Name, begun: time.Now(), polls: s.Polls}
	if s.Outcome != nil {
		j.outcome = s.Outcome(in.Name)
	}
	if s.jobs == nil {
		s.jobs = make(map[string]*job)
	}
	s.images, s.jobs[j.id] = append(s.images, i), j
	return http.StatusOK, map[string]string{"job_id": j.id}, nil
}

func uuid() string {
	id := randomID()
	return id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
}

// attributes are those of a new image.
func (c *creation) attributes() map[string]any {
	tags := []string{}
	tags = append(tags, c.Tags...)
	for _, t := range c.ImageTags {
		tags = append(tags, t.Key+"="+t.Value)
	}
	a := map[string]any{
		"name": c.Name, "status": "saving", "visibility": "private", "protected": false, "tags": tags,
		"container_format": "bare", "disk_format": "zvhd2", "min_disk": c.MinDisk, "min_ram": c.MinRAM,
		"__imagetype": "private", "__isregistered": "true", "__image_source_type": "uds", "__os_bit": "64", "__root_origin": "file",
		"virtual_env_type": "FusionCompute", "__os_type": "Linux", "__description": c.Description, "__os_version": "Other Linux(64 bit)",
		"hw_firmware_type": "bios",
	}
	if c.OSVersion != "" {
		a["__os_version"] = c.OSVersion
	}
	if c.OSType != nil {
		a["__os_type"] = *c.OSType
	}
	if c.Firmware != "" {
		a["hw_firmware_type"] = c.Firmware
	}
	if c.Type == "BMS" || c.Type == "Ironic" {
		a["virtual_env_type"] = "Ironic"
	}
	return a
}

func (s *Server) job(caller, project, id string) (int, any, error) {
	j := s.jobs[id]
	if project != caller {
		return 0, nil, refuse("IMG.0030", "The project ID and token in the request are invalid.")
	}
	if j == nil || j.project != project {
		return 0, nil, refuse("IMG.0023", "An exception occurred during task query.")
	}
	out := map[string]any{
		"job_id": j.id, "job_type": "imsImportImageJob", "begin_time": stamp(j.begun), "end_time": nil,
		"error_code": nil, "fail_reason": nil, "entities": map[string]any{}, "status": "RUNNING",
	}
	if j.polls > 0 {
		j.polls--
		return http.StatusOK, out, nil
	}
	s.end(j)
	out["end_time"] = stamp(time.Now())
	if j.outcome.Code != "" {
		out["status"], out["error_code"], out["fail_reason"] = "FAIL", j.outcome.Code, "The import has failed."
		return http.StatusOK, out, nil
	}
	out["status"] = "SUCCESS"
	out["entities"] = map[string]any{"image_name": j.name, "image_id": j.imageID}
	return http.StatusOK, out, nil
}

// end does what a job does when it ends.
func (s *Server) end(j *job) {
	if j.done {
		return
	}
	j.done = true
	for _, i := range s.images {
		if i.id != j.imageID {
			continue
		}
		i.attributes["status"] = "active"
		if j.outcome.Code != "" {
			i.attributes["status"] = "killed"
		}
		if j.outcome.Status != "" {
			i.attributes["status"] = j.outcome.Status
		}
		if !j.outcome.Empty && j.outcome.Code == "" {
			i.attributes["__image_size"] = strconv.FormatInt(i.bytes, 10)
		}
	}
}

// filters are those of querying_images.rst that an image factory may use; others of the
// document are refused as not spoken by this server.
var filters = []string{"owner", "name", "id", "status", "visibility", "protected", "__imagetype", "__isregistered", "tag", "limit", "marker", "sort_key", "sort_dir"}

func (s *Server) list(r *http.Request, project string) (int, any, error) {
	q := r.URL.Query()
	for name := range q {
		if !slices.Contains(filters, name) {
			return 0, nil, refuse("IMG.0001", "The request message format is invalid.")
		}
	}
	limit := 500
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 500 {
			return 0, nil, refuse("IMG.0001", "The request message format is invalid.")
		}
		limit = n
	}
	s.advance()
	images := []any{}
	after := q.Get("marker") == ""
	for n := len(s.images) - 1; n >= 0 && len(images) < limit; n-- { // created_at, descending
		i := s.images[n]
		if !after {
			after = i.id == q.Get("marker")
			continue
		}
		if i.seenBy(project) && i.matches(q.Get) {
			images = append(images, i.show())
		}
	}
	return http.StatusOK, map[string]any{"images": images, "first": "/v2/cloudimages", "schema": "/v2/schemas/images"}, nil
}

// advance lets jobs go on that nobody asks for.
func (s *Server) advance() {
	for _, j := range s.jobs {
		if j.polls--; j.polls < 0 {
			s.end(j)
		}
	}
}

func (i *image) matches(want func(string) string) bool {
	shown := i.show()
	for _, name := range []string{"owner", "name", "id", "status", "visibility", "protected", "__imagetype", "__isregistered"} {
		if w := want(name); w != "" && fmt.Sprint(shown[name]) != w {
			return false
		}
	}
	if t := want("tag"); t != "" {
		tags, _ := i.attributes["tags"].([]string)
		return slices.Contains(tags, t) || slices.Contains(tags, strings.Replace(t, "=", ".", 1))
	}
	return true
}

// settable are what updating_an_image.rst lists; other names are extension attributes,
// unless they are attributes of the service.
var (
	settable = []string{"name", "__description", "__is_config_init", "enterprise_project_id", "min_ram", "max_ram", "hw_vif_multiqueue_enabled", "hw_firmware_type"}
	own      = []string{
		"id", "status", "owner", "visibility", "protected", "size", "checksum", "virtual_size", "created_at", "updated_at", "self", "file", "schema",
		"tags", "container_format", "disk_format", "min_disk", "__imagetype", "__isregistered", "__image_source_type", "__image_size", "__image_location",
		"__os_type", "__os_version", "__os_bit", "__platform", "virtual_env_type", "__root_origin", "__originalimagename", "__data_origin", "__backup_id",
	}
)

func (s *Server) patch(r *http.Request, project, id string) (int, any, error) {
	i, err := s.findOwn(project, id)
	if err != nil {
		return 0, nil, err
	}
	if i.attributes["status"] != "active" {
		return 0, nil, refuse("IMG.0046", "The image is unavailable.")
	}
	var ops []struct {
		Op    string  `json:"op"`
		Path  string  `json:"path"`
		Value *string `json:"value"`
	}
	if err := decode(r, &ops); err != nil {
		return 0, nil, err
	}
	changed := make(map[string]any)
	for name, value := range i.attributes {
		changed[name] = value
	}
	for _, o := range ops {
		name, rooted := strings.CutPrefix(o.Path, "/")
		_, there := changed[name]
		public := name == "visibility" && s.Operator
		switch {
		case !rooted, !extension.MatchString(name), slices.Contains(own, name) && !public,
			o.Op != "remove" && o.Value == nil, o.Op == "remove" && slices.Contains(settable, name),
			(o.Op == "replace" || o.Op == "remove") && !there, !slices.Contains([]string{"add", "replace", "remove"}, o.Op):
			return 0, nil, refuse("IMG.0035", "An attribute conflict occurred during the modification.")
		case o.Op == "remove":
			delete(changed, name)
			continue
		case name == "name" && (!nameForm.MatchString(*o.Value) || len(*o.Value) > 128):
			return 0, nil, refuse("IMG.0003", "The image name format is invalid.")
		}
		changed[name] = *o.Value
	}
	i.attributes = changed
	return http.StatusOK, i.show(), nil
}
