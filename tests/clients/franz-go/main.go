// franz-go against a broker; the same checks as tests/clients/librdkafka.
//
//	franz-go BROKER main|write|read RUN
//
// Record i of a topic goes to partition i mod 3, and everything in it follows from i, so a consumer checks content,
// order and completeness from the offset alone. Each test prints `ok NAME`, `FAIL NAME: why` or `skip NAME: why`.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	partitions     = 3
	records        = 301
	restartRecords = 5000
	timeout        = 30 * time.Second
)

var (
	broker   string
	run      int64
	failures int
	codecs   = map[string]kgo.CompressionCodec{"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(),
		"snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}
	codecNames = []string{"none", "gzip", "snappy", "lz4", "zstd"}
)

func expected(topic string, i int) *kgo.Record {
	r := &kgo.Record{Topic: topic, Partition: int32(i % partitions),
		Timestamp: time.UnixMilli((run-3600)*1000 + int64(i)*10)}
	if i%5 != 0 {
		r.Key = []byte(fmt.Sprintf("k%d", i%23))
	}
	if i%31 != 30 {
		r.Value = append([]byte(fmt.Sprintf("%s/%d/", topic, i)), bytes.Repeat([]byte{byte('a' + i%26)}, i*37%600)...)
	}
	h1 := kgo.RecordHeader{Key: "h1", Value: []byte(fmt.Sprintf("v%d", i))}
	switch i % 3 {
	case 1:
		r.Headers = []kgo.RecordHeader{h1}
	case 2:
		r.Headers = []kgo.RecordHeader{h1, {Key: "h2", Value: nil}, {Key: "h3", Value: []byte{}}}
	}
	return r
}

func same(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

func check(topic string, r *kgo.Record) error {
	i := int(r.Offset)*partitions + int(r.Partition)
	want := expected(topic, i)
	switch {
	case !same(r.Key, want.Key):
		return fmt.Errorf("record %d: key %q instead of %q", i, r.Key, want.Key)
	case !same(r.Value, want.Value):
		return fmt.Errorf("record %d: another value", i)
	case !r.Timestamp.Equal(want.Timestamp):
		return fmt.Errorf("record %d: timestamp %v instead of %v", i, r.Timestamp, want.Timestamp)
	case len(r.Headers) != len(want.Headers):
		return fmt.Errorf("record %d: %d headers", i, len(r.Headers))
	}
	for k, h := range want.Headers {
		if r.Headers[k].Key != h.Key || !same(r.Headers[k].Value, h.Value) {
			return fmt.Errorf("record %d: header %d is %v", i, k, r.Headers[k])
		}
	}
	return nil
}

func client(opts ...kgo.Opt) *kgo.Client {
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(broker), kgo.RetryTimeout(timeout)}, opts...)...)
	if err != nil {
		panic(err)
	}
	return c
}

func withAdmin(f func(ctx context.Context, a *kadm.Client) error) error {
	c := client()
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return f(ctx, kadm.NewClient(c))
}

func create(topic string, n int32) error {
	return withAdmin(func(ctx context.Context, a *kadm.Client) error {
		_, err := a.CreateTopic(ctx, n, 1, nil, topic)
		return err
	})
}

// created also waits until each partition answers: Apache Kafka's come up after its answer.
func created(topic string) error {
	if err := create(topic, partitions); err != nil {
		return err
	}
	return withAdmin(func(ctx context.Context, a *kadm.Client) error {
		for {
			ends, err := a.ListEndOffsets(ctx, topic)
			if err == nil && ends.Error() == nil && len(ends[topic]) == partitions {
				return nil
			}
			if ctx.Err() != nil {
				return fmt.Errorf("%s is not served: %v, %v", topic, err, ends.Error())
			}
			time.Sleep(50 * time.Millisecond)
		}
	})
}

func remove(topic string) error {
	return withAdmin(func(ctx context.Context, a *kadm.Client) error {
		_, err := a.DeleteTopic(ctx, topic)
		return err
	})
}

func producer(codec, mode string, maxBytes int32) *kgo.Client {
	opts := []kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(codecs[codec]),
		kgo.ProducerLinger(2 * time.Millisecond), kgo.ProducerBatchMaxBytes(maxBytes)}
	switch mode {
	case "acks-all":
		opts = append(opts, kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.AllISRAcks()))
	case "acks-1":
		opts = append(opts, kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck()))
	case "acks-0":
		opts = append(opts, kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.NoAck()))
	}
	return client(opts...)
}

func produceAll(codec, mode, topic string, from, to int) error {
	c := producer(codec, mode, 1000000)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	results := make(chan *kgo.Record, to-from)
	errs := make(chan error, to-from)
	for i := from; i < to; i++ {
		c.Produce(ctx, expected(topic, i), func(r *kgo.Record, err error) {
			if err != nil {
				errs <- err
			} else {
				results <- r
			}
		})
		if i%50 == 49 && mode != "idempotent" { // several batches without idempotence, still in order
			if err := c.Flush(ctx); err != nil {
				return err
			}
		}
	}
	if err := c.Flush(ctx); err != nil {
		return err
	}
	if len(errs) > 0 {
		return fmt.Errorf("%d of %d not delivered: %w", len(errs), to-from, <-errs)
	}
	if len(results) != to-from {
		return fmt.Errorf("%d of %d acknowledged", len(results), to-from)
	}
	close(results)
	for r := range results {
		var n int
		if mode == "acks-0" || r.Value == nil {
			continue
		}
		rest := r.Value[len(topic)+1:]
		n, _ = strconv.Atoi(string(rest[:bytes.IndexByte(rest, '/')]))
		if int64(n/partitions) != r.Offset {
			return fmt.Errorf("record %d was acknowledged at offset %d", n, r.Offset)
		}
	}
	return nil
}

func consumer(topic string, at map[int32]kgo.Offset) *kgo.Client {
	return client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: at}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxWait(200*time.Millisecond))
}

func everywhere(o kgo.Offset) map[int32]kgo.Offset {
	at := map[int32]kgo.Offset{}
	for p := int32(0); p < partitions; p++ {
		at[p] = o
	}
	return at
}

func endOffsets(topic string) (map[int32]int64, int64, error) {
	ends, total := map[int32]int64{}, int64(0)
	err := withAdmin(func(ctx context.Context, a *kadm.Client) error {
		starts, err := a.ListStartOffsets(ctx, topic)
		if err != nil {
			return err
		}
		list, err := a.ListEndOffsets(ctx, topic)
		if err != nil {
			return err
		}
		list.Each(func(o kadm.ListedOffset) {
			if s, ok := starts.Lookup(topic, o.Partition); !ok || s.Offset != 0 || s.Err != nil || o.Err != nil {
				err = fmt.Errorf("partition %d starts at %v, ends at %v", o.Partition, s, o)
			}
			ends[o.Partition] = o.Offset
			total += o.Offset
		})
		return err
	})
	return ends, total, err
}

func consumeAll(topic string, count int) error {
	ends, total, err := endOffsets(topic)
	if err != nil {
		return err
	}
	if total != int64(count) {
		return fmt.Errorf("end offsets sum up to %d of %d", total, count)
	}
	if count == 0 {
		return nil
	}
	c := consumer(topic, everywhere(kgo.NewOffset().AtStart()))
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	next := [partitions]int64{}
	for seen := 0; seen < count; {
		fetches := c.PollFetches(ctx)
		if errs := fetches.Errors(); len(errs) > 0 {
			return fmt.Errorf("after %d of %d: %w", seen, count, errs[0].Err)
		}
		for _, r := range fetches.Records() {
			if r.Offset != next[r.Partition] {
				return fmt.Errorf("partition %d: offset %d, not %d", r.Partition, r.Offset, next[r.Partition])
			}
			if err := check(topic, r); err != nil {
				return err
			}
			next[r.Partition]++
			seen++
		}
	}
	for p, end := range ends {
		if next[p] != end {
			return fmt.Errorf("partition %d ends at %d, %d read", p, end, next[p])
		}
	}
	return nil
}

func roundtrip(topic, codec, mode string) error {
	if err := created(topic); err != nil {
		return err
	}
	if err := produceAll(codec, mode, topic, 0, records); err != nil {
		return err
	}
	for tries := 0; mode == "acks-0" && tries < 100; tries++ {
		if _, total, err := endOffsets(topic); err != nil || total >= records {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := consumeAll(topic, records); err != nil {
		return err
	}
	return remove(topic)
}

func adminTest(topic string) error {
	if err := created(topic); err != nil {
		return err
	}
	if err := create(topic, partitions); !errors.Is(err, kerr.TopicAlreadyExists) {
		return fmt.Errorf("created twice: %v", err)
	}
	err := withAdmin(func(ctx context.Context, a *kadm.Client) error {
		md, err := a.Metadata(ctx, topic)
		if err != nil {
			return err
		}
		if len(md.Brokers) != 1 || md.Cluster == "" || len(md.Topics[topic].Partitions) != partitions {
			return fmt.Errorf("metadata: %+v", md)
		}
		if md.Topics[topic].ID == (kadm.TopicID{}) {
			return errors.New("the topic has no id")
		}
		versions, err := a.ApiVersions(ctx)
		if err != nil || len(versions) != 1 || versions.Sorted()[0].Err != nil {
			return fmt.Errorf("ApiVersions: %v, %v", versions, err)
		}
		configs, err := a.DescribeTopicConfigs(ctx, topic)
		if err != nil {
			return err
		}
		rc, err := configs.On(topic, nil)
		if err != nil || rc.Err != nil {
			return fmt.Errorf("configs: %v, %v", err, rc.Err)
		}
		for _, c := range rc.Configs {
			if c.Key == "max.message.bytes" && c.Value != nil && *c.Value == "1048588" {
				return nil
			}
		}
		return errors.New("max.message.bytes is not among the configs")
	})
	if err != nil {
		return err
	}
	if err := remove(topic); err != nil {
		return err
	}
	if err := remove(topic); !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("deleted twice: %v", err)
	}
	return nil
}

func times(topic, codec string) error {
	if err := created(topic); err != nil {
		return err
	}
	if err := produceAll(codec, "idempotent", topic, 0, records); err != nil {
		return err
	}
	err := withAdmin(func(ctx context.Context, a *kadm.Client) error {
		for i := 0; i <= records; i += 7 {
			list, err := a.ListOffsetsAfterMilli(ctx, (run-3600)*1000+int64(i)*10-3, topic)
			if err != nil {
				return err
			}
			for p := 0; p < partitions; p++ {
				first := i + ((p-i)%partitions+partitions)%partitions
				want := int64(first / partitions)
				if first >= records { // kadm answers with the end offset where there is no such record
					want = int64((records-1-p)/partitions + 1)
				}
				if o, ok := list.Lookup(topic, int32(p)); !ok || o.Err != nil || o.Offset != want {
					return fmt.Errorf("time of record %d, partition %d: %v instead of %d", i, p, o, want)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return remove(topic)
}

func large(topic, codec string) error {
	if err := created(topic); err != nil {
		return err
	}
	c := producer(codec, "idempotent", 3000000)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var values [][]byte
	for k := 0; k < 6; k++ {
		v := make([]byte, 900000)
		rand.New(rand.NewSource(int64(k))).Read(v)
		values = append(values, v)
		if err := c.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: v}).FirstErr(); err != nil {
			return fmt.Errorf("900 KB: %w", err)
		}
	}
	v := make([]byte, 1500000)
	rand.New(rand.NewSource(9)).Read(v)
	c2 := producer(codec, "acks-all", 3000000)
	defer c2.Close()
	err := c2.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: v}).FirstErr()
	if !errors.Is(err, kerr.MessageTooLarge) {
		return fmt.Errorf("1.5 MB: %v", err)
	}
	r := consumer(topic, map[int32]kgo.Offset{0: kgo.NewOffset().AtStart()})
	defer r.Close()
	for k := 0; k < len(values); {
		fetches := r.PollFetches(ctx)
		if errs := fetches.Errors(); len(errs) > 0 {
			return errs[0].Err
		}
		for _, rec := range fetches.Records() {
			if rec.Offset != int64(k) || !bytes.Equal(rec.Value, values[k]) {
				return fmt.Errorf("record %d differs", k)
			}
			k++
		}
	}
	return remove(topic)
}

func tail(topic string) error {
	if err := created(topic); err != nil {
		return err
	}
	c := consumer(topic, everywhere(kgo.NewOffset().At(0)))
	defer c.Close()
	for i := 0; i < 40; i++ {
		if err := produceAll("none", "idempotent", topic, i, i+1); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		var got []*kgo.Record
		for len(got) == 0 {
			fetches := c.PollRecords(ctx, 1)
			if errs := fetches.Errors(); len(errs) > 0 {
				cancel()
				return fmt.Errorf("record %d: %w", i, errs[0].Err)
			}
			got = fetches.Records()
		}
		cancel()
		if int(got[0].Offset)*partitions+int(got[0].Partition) != i {
			return fmt.Errorf("another record than %d: partition %d offset %d", i, got[0].Partition, got[0].Offset)
		}
		if err := check(topic, got[0]); err != nil {
			return err
		}
	}
	return remove(topic)
}

func keptWrite(topic, codec string) error {
	if err := created(topic); err != nil {
		return err
	}
	return produceAll(codec, "idempotent", topic, 0, restartRecords)
}

func member(topic string, opts ...kgo.Opt) *kgo.Client {
	return client(append([]kgo.Opt{kgo.ConsumerGroup(topic), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(6 * time.Second),
		kgo.HeartbeatInterval(500 * time.Millisecond), kgo.FetchMaxWait(100 * time.Millisecond)}, opts...)...)
}

// groupRead polls the members in turn until they have read so many records, each once; it commits after each poll.
func groupRead(topic string, members []*kgo.Client, seen map[int]bool, count int) error {
	deadline := time.Now().Add(60 * time.Second)
	for len(seen) < count {
		for _, m := range members {
			if time.Now().After(deadline) {
				return fmt.Errorf("timed out after %d of %d", len(seen), count)
			}
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			fetches := m.PollRecords(ctx, 20)
			cancel()
			if err := fetches.Err0(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				return err
			}
			for _, r := range fetches.Records() {
				if err := check(topic, r); err != nil {
					return err
				}
				i := int(r.Offset)*partitions + int(r.Partition)
				if seen[i] {
					return fmt.Errorf("record %d was read twice", i)
				}
				seen[i] = true
			}
			if records := fetches.Records(); len(records) > 0 {
				if err := m.CommitRecords(context.Background(), records...); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func group(topic string, balancer kgo.GroupBalancer) error {
	if err := created(topic); err != nil {
		return err
	}
	seen := map[int]bool{}
	a := member(topic, kgo.Balancers(balancer))
	if err := produceAll("none", "idempotent", topic, 0, 60); err != nil {
		return err
	}
	if err := groupRead(topic, []*kgo.Client{a}, seen, 60); err != nil {
		return err
	}
	a.Close() // leaves the group
	b := member(topic, kgo.Balancers(balancer), kgo.InstanceID("static"))
	if err := produceAll("none", "idempotent", topic, 60, 120); err != nil {
		return err
	}
	if err := groupRead(topic, []*kgo.Client{b}, seen, 120); err != nil {
		return err
	}
	b.Close() // a static member does not leave
	b = member(topic, kgo.Balancers(balancer), kgo.InstanceID("static"))
	defer b.Close()
	if err := produceAll("none", "idempotent", topic, 120, 180); err != nil {
		return err
	}
	if err := groupRead(topic, []*kgo.Client{b}, seen, 180); err != nil {
		return err
	}
	return withAdmin(func(ctx context.Context, adm *kadm.Client) error {
		lags, err := adm.Lag(ctx, topic)
		if err != nil {
			return err
		}
		if l := lags[topic]; l.Error() != nil || l.Lag.Total() != 0 || l.State != "Stable" || len(l.Members) != 1 {
			return fmt.Errorf("state %s, lag %d, %d members, %v", l.State, l.Lag.Total(), len(l.Members), l.Error())
		}
		return nil
	})
}

// killed: two members share the partitions; one is killed after a commit; the other goes on there.
func killed(topic string) error {
	if err := created(topic); err != nil {
		return err
	}
	other := exec.Command(os.Args[0], broker, "victim", os.Args[3], topic)
	other.Stderr = os.Stderr
	pipe, err := other.StdoutPipe()
	if err != nil {
		return err
	}
	if err := other.Start(); err != nil {
		return err
	}
	defer other.Wait()
	defer other.Process.Kill()
	said := bufio.NewScanner(pipe)
	if !said.Scan() || said.Text() != "joined" {
		return fmt.Errorf("the other member did not join: %s", said.Text())
	}
	var mine atomic.Int32
	me := member(topic, kgo.Balancers(kgo.RangeBalancer()), kgo.OnPartitionsAssigned(
		func(_ context.Context, _ *kgo.Client, at map[string][]int32) { mine.Store(int32(len(at[topic]))) }))
	defer me.Close()
	for deadline := time.Now().Add(60 * time.Second); mine.Load() == 0; {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		me.PollFetches(ctx)
		cancel()
		if time.Now().After(deadline) {
			return errors.New("no assignment")
		}
	}
	if mine.Load() == partitions {
		return errors.New("the members do not share the partitions")
	}
	if err := produceAll("none", "idempotent", topic, 0, records); err != nil {
		return err
	}
	seen := map[int]bool{}
	for said.Scan() {
		for _, word := range strings.Fields(said.Text()) {
			i, _ := strconv.Atoi(word)
			seen[i] = true
		}
	}
	_ = other.Wait()
	if s := other.ProcessState.Sys().(syscall.WaitStatus); s.Signal() != syscall.SIGKILL || len(seen) < 20 {
		return fmt.Errorf("the other member ended with %v after %d", other.ProcessState, len(seen))
	}
	if err := groupRead(topic, []*kgo.Client{me}, seen, records); err != nil {
		return err
	}
	return remove(topic)
}

// victim commits what it reads, says so, reads on without a commit, and is killed.
func victim(topic string) error {
	joined := make(chan struct{})
	m := member(topic, kgo.Balancers(kgo.RangeBalancer()), kgo.OnPartitionsAssigned(
		func(context.Context, *kgo.Client, map[string][]int32) {
			select {
			case <-joined:
			default:
				close(joined)
			}
		}))
	<-joined
	fmt.Println("joined")
	seen := map[int]bool{}
	if err := groupRead(topic, []*kgo.Client{m}, seen, 20); err != nil {
		return err
	}
	for i := range seen {
		fmt.Print(i, " ")
	}
	fmt.Println()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	m.PollRecords(ctx, 20)
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

func keptGroup(topic string, reading bool) error {
	seen := map[int]bool{}
	if !reading {
		if err := created(topic); err != nil {
			return err
		}
		if err := produceAll("none", "idempotent", topic, 0, 300); err != nil {
			return err
		}
	} else if err := withAdmin(func(ctx context.Context, a *kadm.Client) error {
		offsets, err := a.FetchOffsets(ctx, topic)
		offsets.Each(func(o kadm.OffsetResponse) {
			for at := int64(0); at < o.At; at++ {
				seen[int(at)*partitions+int(o.Partition)] = true
			}
		})
		if err == nil && len(seen) < 100 {
			err = fmt.Errorf("only %d of 100 commits are left", len(seen))
		}
		return err
	}); err != nil {
		return err
	}
	m := member(topic)
	defer m.Close()
	if reading {
		return groupRead(topic, []*kgo.Client{m}, seen, 300)
	}
	return groupRead(topic, []*kgo.Client{m}, seen, 100)
}

func keptRead(topic, codec string) error {
	if err := consumeAll(topic, restartRecords); err != nil {
		return err
	}
	if err := produceAll(codec, "idempotent", topic, restartRecords, restartRecords+300); err != nil {
		return err
	}
	if err := consumeAll(topic, restartRecords+300); err != nil {
		return err
	}
	return remove(topic)
}

func test(name string, err error) {
	if err != nil {
		failures++
		fmt.Printf("FAIL %s: %v\n", name, err)
		return
	}
	fmt.Println("ok", name)
}

func main() {
	if len(os.Args) < 4 {
		fmt.Fprintln(os.Stderr, "usage: franz-go BROKER main|write|read RUN")
		os.Exit(2)
	}
	broker = os.Args[1]
	run, _ = strconv.ParseInt(os.Args[3], 10, 64)
	name := func(parts string) string { return fmt.Sprintf("franz-%d-%s", run, parts) }
	switch os.Args[2] {
	case "victim":
		fmt.Fprintln(os.Stderr, "victim:", victim(os.Args[4]))
		os.Exit(1)
	case "main":
		test("admin", adminTest(name("admin")))
		for _, codec := range codecNames {
			for _, mode := range []string{"idempotent", "acks-all", "acks-1", "acks-0"} {
				test("roundtrip."+codec+"."+mode, roundtrip(name(codec+"-"+mode), codec, mode))
			}
			test("times."+codec, times(name("times-"+codec), codec))
			test("large."+codec, large(name("large-"+codec), codec))
		}
		test("tail", tail(name("tail")))
		test("group.range", group(name("group-range"), kgo.RangeBalancer()))
		test("group.cooperative", group(name("group-cooperative"), kgo.CooperativeStickyBalancer()))
		test("group.killed", killed(name("group-killed")))
	case "write":
		test("restart.write.group", keptGroup(name("kept-group"), false))
		for _, codec := range codecNames {
			test("restart.write."+codec, keptWrite(name("kept-"+codec), codec))
		}
	case "read":
		test("restart.read.group", keptGroup(name("kept-group"), true))
		for _, codec := range codecNames {
			test("restart.read."+codec, keptRead(name("kept-"+codec), codec))
		}
	}
	if failures > 0 {
		os.Exit(1)
	}
}
