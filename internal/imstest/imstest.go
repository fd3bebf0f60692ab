// Package imstest is a server that speaks the API of Open Telekom Cloud's Image
// Management Service as far as an image factory uses it, and of the Identity service
// what one needs to log in.
//
// It follows the API reference of the service, revision 7f136da4 of
// github.com/opentelekomcloud-docs/image-management-service, api-ref/source:
//
//	POST   /v2/cloudimages/action               ims_apis/image/creating_an_image.rst
//	POST   /v2/cloudimages/quickimport/action   ims_apis/image/importing_an_image_file_quickly.rst
//	GET    /v2/cloudimages                      ims_apis/image/querying_images.rst
//	PATCH  /v2/cloudimages/{id}                 ims_apis/image/updating_an_image.rst
//	GET    /v1/{project}/jobs/{id}              ims_apis/image_jobs/querying_the_status_of_an_asynchronous_job.rst
//	GET    /v1/cloudimages/quota                ims_apis/image_quota/querying_the_image_quota.rst
//	GET    /v2/images/{id}                      native_openstack_apis/…/querying_image_details_native_openstack_api.rst
//	DELETE /v2/images/{id}                      native_openstack_apis/…/deleting_an_image_native_openstack_api.rst
//	POST   /v2/images/{id}/members              native_openstack_apis/…/adding_an_image_sharing_member_native_openstack_api.rst
//	GET    /                                    native_openstack_apis/…/querying_api_versions_native_openstack_api.rst
//	codes of errors                             error_codes.rst
//	names, descriptions, tags                   common_parameters/image_attributes.rst, image_tag_format.rst
//
// It is strict: what is not documented, has another type, or is out of bounds is
// refused with the documented code. Where the documents leave something open it takes
// the way that asks more of a client: an image is listed, as saving, from the call on
// that begins its import; only active images can be changed; visibility cannot be
// changed unless Operator is set.
package imstest

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Server is the service. It is an [http.Handler] and may be used concurrently. Fields
// are set before it is used.
type Server struct {
	// Users are the passwords of users. Each has a project of its own, whose ID is
	// ProjectOf of the name.
	Users map[string]string
	// Objects has the buckets as directories.
	Objects fs.FS
	// Polls is how often a job says that it is under way before it is done.
	Polls int
	// Quota is how many images a project may have; if 0, 50. Tasks is how many imports
	// may be under way; if 0, 40.
	Quota, Tasks int
	// Operator lets images be made public.
	Operator bool
	// Outcome, if not nil, says how the import of an image of the name ends.
	Outcome func(name string) Outcome

	mu     sync.Mutex
	tokens map[string]string // project by token
	images []*image          // in the order in which they were made
	jobs   map[string]*job
}

// An Outcome is how an import ends.
type Outcome struct {
	Code   string // of the error of a job that fails; "" if it says SUCCESS
	Status string // of the image; if "", active, or killed if the job fails
	Empty  bool   // the image has no byte
}

// Identity is the path below which the Identity service is.
const Identity = "/identity"

// ProjectOf is the ID of the user's project.
func ProjectOf(user string) string { return hex.EncodeToString([]byte(fmt.Sprintf("%-16.16s", user))) }

type image struct {
	id, owner  string
	attributes map[string]any // beside id and owner
	members    []string
	created    time.Time
	bytes      int64
}

type job struct {
	project, id, imageID, name string
	begun                      time.Time
	polls                      int
	outcome                    Outcome
	done                       bool
}

// fault is an answer that is no success.
type fault struct {
	status        int
	code, message string
}

func (f *fault) Error() string { return f.code + " " + f.message }

func refuse(code, message string) error { return &fault{http.StatusBadRequest, code, message} }

func status(n int) error { return &fault{n, "", http.StatusText(n)} }

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch path := strings.TrimSuffix(r.URL.Path, "/"); {
	case r.Method == http.MethodPost && path == Identity+"/v3/auth/tokens":
		s.login(w, r)
		return
	case r.Method == http.MethodGet && (path == Identity || path == Identity+"/v3"):
		version := map[string]any{"id": "v3.8", "status": "stable", "links": links(base(r) + Identity + "/v3/")}
		answer(w, http.StatusOK, map[string]any{"version": version, "versions": map[string]any{"values": []any{version}}})
		return
	case r.Method == http.MethodGet && path == "":
		answer(w, http.StatusMultipleChoices, map[string]any{"versions": []any{
			map[string]any{"status": "CURRENT", "id": "v2.2", "links": links(base(r) + "/v2/")},
			map[string]any{"status": "SUPPORTED", "id": "v2.0", "links": links(base(r) + "/v2/")},
		}})
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	code, out, err := s.route(r)
	var f *fault
	switch {
	case err == nil:
		answer(w, code, out)
	case errors.As(err, &f) && f.code != "":
		answer(w, f.status, map[string]any{"error": map[string]string{"message": f.message, "code": f.code}})
	case errors.As(err, &f):
		w.WriteHeader(f.status)
	default:
		w.WriteHeader(http.StatusInternalServerError)
	}
}

func links(url string) []any { return []any{map[string]string{"rel": "self", "href": url}} }

func answer(w http.ResponseWriter, code int, out any) {
	if out == nil {
		w.WriteHeader(code)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(out)
}

func base(r *http.Request) string {
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}

// route does a call for the project of its token.
func (s *Server) route(r *http.Request) (int, any, error) {
	project, ok := s.tokens[r.Header.Get("X-Auth-Token")]
	if !ok {
		return 0, nil, status(http.StatusUnauthorized)
	}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	is := func(method string, want ...string) bool {
		return r.Method == method && slices.EqualFunc(parts, want, func(have, want string) bool { return want == "*" || have == want })
	}
	switch {
	case is(http.MethodPost, "v2", "cloudimages", "action"):
		return s.create(r, project, false)
	case is(http.MethodPost, "v2", "cloudimages", "quickimport", "action"):
		return s.create(r, project, true)
	case is(http.MethodGet, "v2", "cloudimages"):
		return s.list(r, project)
	case is(http.MethodPatch, "v2", "cloudimages", "*"):
		return s.patch(r, project, parts[2])
	case is(http.MethodGet, "v1", "*", "jobs", "*"):
		return s.job(project, parts[1], parts[3])
	case is(http.MethodGet, "v1", "cloudimages", "quota"):
		return s.quota(project)
	case is(http.MethodGet, "v2", "images", "*"):
		s.advance()
		i, err := s.find(project, parts[2])
		if err != nil {
			return 0, nil, err
		}
		return http.StatusOK, i.show(), nil
	case is(http.MethodDelete, "v2", "images", "*"):
		return s.remove(project, parts[2])
	case is(http.MethodPost, "v2", "images", "*", "members"):
		return s.share(r, project, parts[2])
	}
	return 0, nil, status(http.StatusNotFound)
}

// login answers a password of a user, scoped to its project or not.
func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Auth struct {
			Identity struct {
				Password struct {
					User struct{ Name, Password string }
				}
			}
		}
	}
	data, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	user := &in.Auth.Identity.Password.User
	if err := json.Unmarshal(data, &in); err != nil || user.Password == "" || s.Users[user.Name] != user.Password {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	token := randomID()
	s.mu.Lock()
	if s.tokens == nil {
		s.tokens = make(map[string]string)
	}
	s.tokens[token] = ProjectOf(user.Name)
	s.mu.Unlock()
	w.Header().Set("X-Subject-Token", token)
	endpoint := map[string]string{"id": "ims", "interface": "public", "region": "eu-de", "region_id": "eu-de", "url": base(r)}
	answer(w, http.StatusCreated, map[string]any{"token": map[string]any{
		"methods": []string{"password"}, "issued_at": stamp(time.Now()), "expires_at": stamp(time.Now().Add(24 * time.Hour)),
		"project": map[string]any{"id": ProjectOf(user.Name), "name": user.Name, "domain": map[string]string{"id": "default", "name": "Default"}},
		"user":    map[string]any{"id": user.Name, "name": user.Name, "domain": map[string]string{"id": "default", "name": "Default"}},
		"catalog": []any{map[string]any{"id": "ims", "type": "image", "name": "glance", "endpoints": []any{endpoint}}},
	}})
}

// ExpireTokens lets no token be good any more.
func (s *Server) ExpireTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// find returns an image that the project may see.
func (s *Server) find(project, id string) (*image, error) {
	for _, i := range s.images {
		if i.id == id && i.seenBy(project) {
			return i, nil
		}
	}
	return nil, status(http.StatusNotFound)
}

func (s *Server) findOwn(project, id string) (*image, error) {
	i, err := s.find(project, id)
	if err == nil && i.owner != project {
		return nil, status(http.StatusForbidden)
	}
	return i, err
}

func (i *image) seenBy(project string) bool {
	return i.owner == project || i.attributes["visibility"] == "public" || slices.Contains(i.members, project)
}

func (i *image) show() map[string]any {
	out := map[string]any{
		"id": i.id, "owner": i.owner, "created_at": i.created.UTC().Format(time.RFC3339), "updated_at": i.created.UTC().Format(time.RFC3339),
		"self": "/v2/images/" + i.id, "file": "/v2/images/" + i.id + "/file", "schema": "/v2/schemas/image",
		"checksum": "d41d8cd98f00b204e9800998ecf8427e", "size": 0, "virtual_size": nil,
	}
	for name, value := range i.attributes {
		out[name] = value
	}
	return out
}

func (s *Server) quota(project string) (int, any, error) {
	resource := map[string]any{"type": "image", "used": s.used(project), "quota": s.limit(), "min": 1, "max": 1000}
	return http.StatusOK, map[string]any{"quotas": map[string]any{"resources": []any{resource}}}, nil
}

func (s *Server) limit() int {
	if s.Quota == 0 {
		return 50
	}
	return s.Quota
}

func (s *Server) used(project string) int {
	n := 0
	for _, i := range s.images {
		if i.owner == project {
			n++
		}
	}
	return n
}

func (s *Server) remove(project, id string) (int, any, error) {
	i, err := s.findOwn(project, id)
	switch {
	case err != nil:
		return 0, nil, err
	case i.attributes["protected"] == true:
		return 0, nil, refuse("IMG.0028", "The image in the request is protected.")
	case i.attributes["visibility"] == "public" && !s.Operator:
		return 0, nil, refuse("IMG.0094", "The public image cannot be deleted.")
	case i.attributes["status"] == "saving":
		return 0, nil, refuse("IMG.0090", "The image being created cannot be deleted.")
	}
	s.images = slices.DeleteFunc(s.images, func(o *image) bool { return o == i })
	return http.StatusNoContent, nil, nil
}

func (s *Server) share(r *http.Request, project, id string) (int, any, error) {
	i, err := s.findOwn(project, id)
	if err != nil {
		return 0, nil, err
	}
	var in struct {
		Member string `json:"member"`
	}
	if err := decode(r, &in); err != nil {
		return 0, nil, err
	}
	switch {
	case in.Member == "":
		return 0, nil, refuse("IMG.0001", "The request message format is invalid.")
	case in.Member == project:
		return 0, nil, refuse("IMG.0076", "You cannot share an image with yourself.")
	case i.attributes["visibility"] == "public":
		return 0, nil, refuse("IMG.0089", "The public image cannot be shared.")
	case slices.Contains(i.members, in.Member):
		return 0, nil, status(http.StatusConflict)
	}
	i.members = append(i.members, in.Member)
	now := time.Now().UTC().Format(time.RFC3339)
	return http.StatusOK, map[string]string{"status": "pending", "created_at": now, "updated_at": now, "image_id": id, "member_id": in.Member, "schema": "/v2/schemas/member"}, nil
}

// decode reads the body strictly.
func decode(r *http.Request, out any) error {
	data, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return status(http.StatusBadRequest)
	}
	if len(data) == 0 {
		return refuse("IMG.0007", "The request body is empty.")
	}
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(out); err != nil {
		return refuse("IMG.0001", "The request message format is invalid.")
	}
	return nil
}

// Image returns what the service shows of an image, or nil: for tests.
func (s *Server) Image(id string) map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.images {
		if i.id == id {
			return i.show()
		}
	}
	return nil
}

// Members returns the projects that an image is shared with: for tests.
func (s *Server) Members(id string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.images {
		if i.id == id {
			return slices.Clone(i.members)
		}
	}
	return nil
}

// Put changes an attribute of an image as nobody can by a call, and makes the image if
// the ID is none: for tests.
func (s *Server) Put(id, owner string, attributes map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.images {
		if i.id == id {
			for name, value := range attributes {
				i.attributes[name] = value
			}
			return
		}
	}
	s.images = append(s.images, &image{id: id, owner: owner, created: time.Now(), attributes: attributes})
}
