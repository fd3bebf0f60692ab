// Package queue has the stages of an image factory done by several processes, as jobs of
// River (https://riverqueue.com) in a database: SQLite in a file for the workers of one
// machine, PostgreSQL for those of several.
//
//	q, err := queue.Open(ctx, queue.Config{URL: "sqlite:dist/.work/queue.sqlite"})
//	tasks, err := factory.Tasks(definitions) // the night's plan
//	err = q.Add(ctx, tasks)
//	report, err := q.Wait(ctx, tasks, nil)
//
// and in each worker
//
//	factory.Definitions = definitions
//	err = q.Work(ctx, queue.Worker{Factory: factory})
//
// Package imagefactory does not know of it: a job is an [imagefactory.Task], and is
// done by [imagefactory.Factory.Do].
//
// # Jobs
//
// There is one job per stage, unique per image and build. That of the first stage
// carries the tasks that follow it, and each job that is done adds the next: what is in
// the database can be done now, and a failed image leaves nothing behind. It is
//
//	done        when Do has done it, or says that there is nothing to do
//	put off     for Pause while another works on the image or an earlier stage is to
//	            be done again, which is then added again
//	tried again as Factory.Limits says (Tries, Pause) when the error is transient
//	failed      with all other errors
//
// The stages of an image are in three queues: [Build]; [Test], which has the inspection
// too; and [Publish], which has the sealing. A worker takes of each as many at once as
// Worker.Queues says. Of the jobs in a queue those of a higher priority are taken first,
// of one priority those that were added first.
//
// # Lost workers
//
// River can bound how long a job takes, or leave it alone: it then never takes it from a
// worker that is gone. A build may take hours, so there is no bound here. Instead a worker
// renews the job's attempted_at four times in a Lease, and each worker gives back
// the jobs that were not renewed for one, River's JobRescueMany making sure that only one
// of them does. With the default of 20 seconds a lost worker's stage is taken up within
// half a minute, and if the process that does so has just begun, or could not reach the
// database either, within 50 seconds: it waits for a Lease so that others can be heard.
// A job whose worker was lost for the twentieth time fails.
//
// A worker that was away for a Lease (a stopped process, a network that was cut) may be
// alive nevertheless. It goes on, since hours of work may be in it: the factory's lock of
// the image keeps the second worker waiting (ErrBusy), which then finds the stage done.
// So that lock is what keeps a stage from being done twice, and the Lease what has it
// taken up. Times are the database's own.
//
// # Limits
//
// All workers share Factory.Dir: with several machines it is on a file system whose
// flock(2) works between them. A job's arguments name an image, a build and a stage:
// who may write to the database chooses what is done, and not how. An error's text and an
// image's report are in the database for a week; passwords of the URL are in no error.
//
// PostgreSQL's client library reads the environment, so that a password need not be in
// the URL: PGPASSWORD, PGPASSFILE and ~/.pgpass.
//
// A Queue may be used concurrently. Its tables are River's, made and migrated by Open.
package queue
