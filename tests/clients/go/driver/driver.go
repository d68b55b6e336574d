// Package driver asks of a client in Go what tests/clients/README.md lists as "the short suites"; a Client says how it is
// done. Record i goes to partition i mod 3, and everything in it follows from i.
//
//	PROGRAM BROKER main|write|read RUN        (and, started by itself: victim RUN TOPIC)
package driver

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	Partitions = 3
	Timeout    = 60 * time.Second
	records    = 301
	kept       = 2000
)

type Header struct {
	Key   string
	Value []byte
}

type Record struct {
	Partition  int
	Offset     int64
	Key, Value []byte
	Headers    []Header
	Time       time.Time
}

// Member of the group of the topic's name. Poll waits a little for one record: nil, where none came.
type Member interface {
	Assigned() int // so many partitions
	Poll() (*Record, error)
	Commit() error // all that was polled
	Close() error
}

type Client interface {
	Name() string
	Codecs() []string
	Create(topic string) error // three partitions
	Delete(topic string) error // where there is none: an error that says `unknown`
	Produce(topic, codec string, records []Record) error
	Read(topic string, count int, each func(*Record) error) error // by hand, from the start
	Ends(topic string) (map[int]int64, error)
	At(topic string, when time.Time) (map[int]int64, error) // -1: none is so late
	Committed(topic string) (map[int]int64, error)
	Join(topic string) (Member, error)
}

type driver struct {
	Client
	run    int64
	failed bool
}

func (d *driver) record(topic string, i int) Record {
	r := Record{Partition: i % Partitions, Offset: int64(i / Partitions), Time: time.UnixMilli((d.run-3600)*1000 + int64(i)*10)}
	if i%5 != 0 {
		r.Key = []byte(fmt.Sprintf("k%d", i%23))
	}
	if i%31 != 30 {
		r.Value = append([]byte(fmt.Sprintf("%s/%d/", topic, i)), bytes.Repeat([]byte{byte('a' + i%26)}, i*37%600)...)
	}
	r.Headers = []Header{{"h1", []byte(fmt.Sprintf("v%d", i))}, {"h2", nil}, {"h3", []byte{}}}[:i%3]
	return r
}

func (d *driver) check(topic string, r *Record) (int, error) {
	i := int(r.Offset)*Partitions + r.Partition
	want := d.record(topic, i)
	same := bytes.Equal(r.Key, want.Key) && (r.Key == nil) == (want.Key == nil) && bytes.Equal(r.Value, want.Value) &&
		(r.Value == nil) == (want.Value == nil) && r.Time.Equal(want.Time) && len(r.Headers) == len(want.Headers)
	for k := 0; same && k < len(want.Headers); k++ {
		same = r.Headers[k].Key == want.Headers[k].Key && bytes.Equal(r.Headers[k].Value, want.Headers[k].Value)
	}
	if !same {
		return i, fmt.Errorf("record %d: %+v, not %+v", i, *r, want)
	}
	return i, nil
}

func (d *driver) produce(topic, codec string, from, to int) error {
	var all []Record
	for i := from; i < to; i++ {
		all = append(all, d.record(topic, i))
	}
	return d.Produce(topic, codec, all)
}

func (d *driver) consume(topic string, count int) error {
	ends, err := d.Ends(topic)
	if err != nil || ends[0]+ends[1]+ends[2] != int64(count) {
		return fmt.Errorf("ends: %v, %v", ends, err)
	}
	var due [Partitions]int64
	return d.Read(topic, count, func(r *Record) error {
		if r.Offset != due[r.Partition] {
			return fmt.Errorf("partition %d: offset %d, not %d", r.Partition, r.Offset, due[r.Partition])
		}
		due[r.Partition]++
		_, err := d.check(topic, r)
		return err
	})
}

// Apache Kafka's partitions come up after its answer.
func (d *driver) created(topic string) error {
	if err := d.Create(topic); err != nil {
		return err
	}
	for deadline := time.Now().Add(Timeout); ; time.Sleep(50 * time.Millisecond) {
		ends, err := d.Ends(topic)
		if err == nil && len(ends) == Partitions {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s is not served: %w", topic, err)
		}
	}
}

func (d *driver) roundtrip(topic, codec string) error {
	if err := first(d.created(topic), func() error { return d.produce(topic, codec, 0, records) },
		func() error { return d.consume(topic, records) }); err != nil {
		return err
	}
	for i := 0; i <= records; i += 43 {
		found, err := d.At(topic, d.record(topic, i).Time.Add(-3*time.Millisecond))
		if err != nil {
			return err
		}
		for p, offset := range found {
			at, want := i+(p-i%Partitions+Partitions)%Partitions, int64(-1)
			if at < records {
				want = int64(at / Partitions)
			}
			if offset != want {
				return fmt.Errorf("time of record %d, partition %d: %d, not %d", i, p, offset, want)
			}
		}
	}
	return d.Delete(topic)
}

func first(err error, then ...func() error) error {
	for _, f := range then {
		if err == nil {
			err = f()
		}
	}
	return err
}

func (d *driver) unknown(topic string) error {
	if err := d.Delete(topic); err == nil || !strings.Contains(strings.ToLower(err.Error()), "not exist") &&
		!strings.Contains(strings.ToLower(err.Error()), "unknown") {
		return fmt.Errorf("deleted what is not there: %v", err)
	}
	return nil
}

// Two members share the partitions; one is killed after a commit; the other goes on there.
func (d *driver) killed(topic string) error {
	if err := d.created(topic); err != nil {
		return err
	}
	other := exec.Command(os.Args[0], os.Args[1], "victim", os.Args[3], topic)
	other.Stderr = os.Stderr
	said := make(chan string, 2)
	pipe, _ := other.StdoutPipe()
	if err := other.Start(); err != nil {
		return err
	}
	defer other.Process.Kill()
	go func() {
		word := make([]byte, 7)
		_, _ = io.ReadFull(pipe, word)
		said <- string(word)
		rest, _ := io.ReadAll(pipe)
		said <- string(rest)
	}()
	me, err := d.Join(topic)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(Timeout)
	for joined := false; !joined || me.Assigned() == 0 || me.Assigned() == Partitions; {
		if r, err := me.Poll(); err != nil || r != nil || time.Now().After(deadline) {
			return fmt.Errorf("%d partitions assigned: %v, %v", me.Assigned(), r, err)
		}
		select {
		case <-said:
			joined = true
		default:
		}
	}
	if err := d.produce(topic, "none", 0, records); err != nil {
		return err
	}
	seen, gone := map[int]int{}, false
	for len(seen) < records || !gone {
		if time.Now().After(deadline) {
			return fmt.Errorf("timed out after %d of %d", len(seen), records)
		}
		select {
		case text := <-said:
			err, gone = other.Wait(), true
			if s, ok := other.ProcessState.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL || text == "" {
				return fmt.Errorf("the other member ended with %v: %s", err, text)
			}
			for _, word := range strings.Fields(text) {
				i, _ := strconv.Atoi(word)
				seen[i]++
			}
		default:
		}
		r, err := me.Poll()
		if err != nil {
			return err
		}
		if r == nil {
			continue
		}
		i, err := d.check(topic, r)
		if err = first(err, me.Commit); err != nil {
			return err
		}
		if seen[i]++; seen[i] > 1 {
			return fmt.Errorf("record %d was read again, though committed", i)
		}
	}
	return first(me.Close(), func() error { return d.Delete(topic) })
}

// Commits what it reads, says so, reads on without a commit, and is killed.
func (d *driver) victim(topic string) error {
	me, err := d.Join(topic)
	if err != nil {
		return err
	}
	for me.Assigned() == 0 {
		if _, err := me.Poll(); err != nil {
			return err
		}
	}
	fmt.Print("joined\n")
	var done []string
	for len(done) < 20 {
		r, err := me.Poll()
		if err != nil {
			return err
		}
		if r != nil {
			i, err := d.check(topic, r)
			if err = first(err, me.Commit); err != nil {
				return err
			}
			done = append(done, strconv.Itoa(i))
		}
	}
	fmt.Println(strings.Join(done, " "))
	for range 10 {
		if _, err := me.Poll(); err != nil {
			return err
		}
	}
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

func (d *driver) groupRead(topic string, seen map[int]bool, count int) error {
	me, err := d.Join(topic)
	for deadline := time.Now().Add(Timeout); err == nil && len(seen) < count; {
		var r *Record
		if r, err = me.Poll(); err != nil || r == nil {
			if time.Now().After(deadline) {
				return fmt.Errorf("timed out after %d of %d", len(seen), count)
			}
			continue
		}
		var i int
		if i, err = d.check(topic, r); err == nil && seen[i] {
			err = fmt.Errorf("record %d came again", i)
		}
		seen[i] = true
		err = first(err, me.Commit)
	}
	if err != nil {
		return err
	}
	return me.Close()
}

func (d *driver) keptGroup(topic string, reading bool) error {
	seen := map[int]bool{}
	if !reading {
		return first(d.created(topic), func() error { return d.produce(topic, "none", 0, records) },
			func() error { return d.groupRead(topic, seen, 100) })
	}
	committed, err := d.Committed(topic)
	for p, offset := range committed {
		for o := int64(0); o < offset; o++ {
			seen[int(o)*Partitions+p] = true
		}
	}
	if err != nil || len(seen) < 100 {
		return fmt.Errorf("only %d of 100 commits are left: %v", len(seen), err)
	}
	return first(d.produce(topic, "none", records, records+60),
		func() error { return d.groupRead(topic, seen, records+60) }, func() error { return d.Delete(topic) })
}

func (d *driver) kept(topic, codec string, reading bool) error {
	if !reading {
		return first(d.created(topic), func() error { return d.produce(topic, codec, 0, kept) })
	}
	return first(d.consume(topic, kept), func() error { return d.produce(topic, codec, kept, kept+300) },
		func() error { return d.consume(topic, kept+300) }, func() error { return d.Delete(topic) })
}

func (d *driver) test(name string, err error) {
	if err != nil {
		d.failed = true
		fmt.Printf("FAIL %s: %s\n", name, strings.ReplaceAll(fmt.Sprintf("%.600s", err.Error()), "\n", " "))
		return
	}
	fmt.Println("ok", name)
}

func Main(make func(broker string) (Client, error)) {
	client, err := make(os.Args[1])
	if err != nil {
		fmt.Println("FAIL connect:", err)
		os.Exit(1)
	}
	d := &driver{Client: client}
	d.run, _ = strconv.ParseInt(os.Args[3], 10, 64)
	topic := func(part string) string { return fmt.Sprintf("%s-%d-%s", d.Name(), d.run, part) }
	switch phase := os.Args[2]; phase {
	case "victim":
		err := d.victim(os.Args[4])
		fmt.Fprintln(os.Stderr, "victim:", err)
		os.Exit(1)
	case "main":
		for _, codec := range d.Codecs() {
			d.test("roundtrip."+codec, d.roundtrip(topic(codec), codec))
		}
		d.test("unknown-topic", d.unknown(topic("unknown")))
		d.test("group.killed", d.killed(topic("killed")))
	default:
		d.test("restart."+phase+".group", d.keptGroup(topic("kept-group"), phase == "read"))
		for _, codec := range d.Codecs() {
			d.test("restart."+phase+"."+codec, d.kept(topic("kept-"+codec), codec, phase == "read"))
		}
	}
	if d.failed {
		os.Exit(1)
	}
}
