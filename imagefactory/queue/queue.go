package queue

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"
	_ "modernc.org/sqlite" // the database/sql driver of that name
)

// Config is what a Queue is opened with.
type Config struct {
	// URL is sqlite:PATH, or postgres://USER@HOST/DATABASE as libpq has it. Of SQLite the
	// file is made where missing, and its directory, which is the owner's alone; it
	// has to be on a disk of this machine. Required.
	URL string
	// Logger is called by several goroutines at once. If nil, nothing is logged.
	Logger *slog.Logger
}

// Queue is a database of jobs.
type Queue struct {
	client client // which only adds
	exec   riverdriver.Executor
	work   func(*river.Config) (client, error)
	now    func(context.Context) (time.Time, error) // the database's clock
	close  func() error
	logger *slog.Logger
}

// client is what is used of a river.Client, of whichever database.
type client interface {
	Insert(ctx context.Context, args river.JobArgs, opts *river.InsertOpts) (*rivertype.JobInsertResult, error)
	InsertMany(ctx context.Context, params []river.InsertManyParams) ([]*rivertype.JobInsertResult, error)
	JobList(ctx context.Context, params *river.JobListParams) (*river.JobListResult, error)
	JobGet(ctx context.Context, id int64) (*rivertype.JobRow, error)
	JobRetry(ctx context.Context, id int64) (*rivertype.JobRow, error)
	JobCancel(ctx context.Context, id int64) (*rivertype.JobRow, error)
	Start(ctx context.Context) error
	Stop(ctx context.Context) error
	StopAndCancel(ctx context.Context) error
	ID() string
}

// Open connects to a database, and makes the tables where they are missing or of an
// older River. Close has to be called.
func Open(ctx context.Context, c Config) (*Queue, error) {
	q := &Queue{logger: c.Logger}
	if q.logger == nil {
		q.logger = slog.New(slog.DiscardHandler)
	}
	scheme, rest, _ := strings.Cut(c.URL, ":")
	var err error
	switch scheme {
	case "sqlite":
		err = q.openSQLite(ctx, strings.TrimPrefix(rest, "//"))
	case "postgres", "postgresql":
		err = q.openPostgreSQL(ctx, c.URL)
	default:
		err = errors.New("want sqlite:PATH or postgres://…")
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the queue's database: %w", err)
	}
	return q, nil
}

// Close closes the connections.
func (q *Queue) Close() error { return q.close() }

func (q *Queue) openSQLite(ctx context.Context, file string) error {
	if file == "" || strings.ContainsAny(file, "?%") || strings.HasPrefix(file, ":") {
		return errors.New("want sqlite:PATH, a file's without ? and %")
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	// Processes take turns: a transaction takes its lock when it begins, and waits for it.
	options := url.Values{"_pragma": {"busy_timeout(30000)", "journal_mode(WAL)", "synchronous(NORMAL)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", "file:"+file+"?"+options.Encode())
	if err != nil {
		return err
	}
	db.SetMaxOpenConns(1) // as River's driver asks for
	q.now = func(context.Context) (time.Time, error) { return time.Now(), nil }
	q.close = db.Close
	return prepare(ctx, q, riversqlite.New(db))
}

func (q *Queue) openPostgreSQL(ctx context.Context, url string) error {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	q.now = func(ctx context.Context) (now time.Time, err error) {
		return now, pool.QueryRow(ctx, "SELECT now()").Scan(&now)
	}
	q.close = func() error { pool.Close(); return nil }
	return prepare(ctx, q, riverpgxv5.New(pool))
}

// prepare makes the tables, and the clients' constructor; it closes q where it fails.
func prepare[TTx any](ctx context.Context, q *Queue, driver riverdriver.Driver[TTx]) error {
	q.exec = driver.GetExecutor()
	q.work = func(c *river.Config) (client, error) {
		return river.NewClient(driver, c)
	}
	migrate := func() error {
		m, err := rivermigrate.New(driver, &rivermigrate.Config{Logger: q.quiet()})
		if err == nil {
			_, err = m.Migrate(ctx, rivermigrate.DirectionUp, nil)
		}
		return err
	}
	err := migrate()
	for range 5 { // another process did so at the same time
		if err == nil || ctx.Err() != nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
		err = migrate()
	}
	if err == nil {
		q.client, err = q.work(&river.Config{Logger: q.quiet()})
	}
	if err != nil {
		return errors.Join(err, q.close())
	}
	return nil
}

// quiet is River's logger: what it tells of each job that ended is told by us.
func (q *Queue) quiet() *slog.Logger {
	return slog.New(warnings{q.logger.Handler()})
}

// warnings passes on what is a warning or worse.
type warnings struct{ slog.Handler }

func (w warnings) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && w.Handler.Enabled(ctx, level)
}

func (w warnings) WithAttrs(attrs []slog.Attr) slog.Handler {
	return warnings{w.Handler.WithAttrs(attrs)}
}

func (w warnings) WithGroup(name string) slog.Handler { return warnings{w.Handler.WithGroup(name)} }
