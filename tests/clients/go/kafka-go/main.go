// kafka-go (segmentio) against a broker; what is checked stands in driver/driver.go.
package main

import (
	"context"
	"errors"
	"io"
	"time"

	"chronik.test/clients/driver"
	"github.com/segmentio/kafka-go"
)

var codecs = map[string]kafka.Compression{"gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}

type client struct {
	broker string
	*kafka.Client
}

func background() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), driver.Timeout)
}

func (c client) Name() string     { return "kafka-go" }
func (c client) Codecs() []string { return []string{"none", "gzip", "snappy", "lz4", "zstd"} }

func (c client) Create(topic string) error {
	ctx, cancel := background()
	defer cancel()
	answer, err := c.CreateTopics(ctx, &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: driver.Partitions, ReplicationFactor: 1}}})
	if err != nil {
		return err
	}
	return answer.Errors[topic]
}

func (c client) Delete(topic string) error {
	ctx, cancel := background()
	defer cancel()
	answer, err := c.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err != nil {
		return err
	}
	return answer.Errors[topic]
}

// To the partition that stands in the message; its own balancers choose one by the key.
type byHand struct{}

func (byHand) Balance(m kafka.Message, partitions ...int) int { return m.WriterData.(int) }

func (c client) Produce(topic, codec string, records []driver.Record) error {
	w := kafka.Writer{Addr: c.Addr, Topic: topic, Balancer: byHand{}, RequiredAcks: kafka.RequireAll,
		Compression: codecs[codec], BatchTimeout: 2 * time.Millisecond, BatchSize: 50}
	defer w.Close()
	var all []kafka.Message
	for _, r := range records {
		m := kafka.Message{Key: r.Key, Value: r.Value, Time: r.Time, WriterData: r.Partition}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, kafka.Header{Key: h.Key, Value: h.Value})
		}
		all = append(all, m)
	}
	ctx, cancel := background()
	defer cancel()
	return w.WriteMessages(ctx, all...)
}

func record(m kafka.Message) *driver.Record {
	r := &driver.Record{Partition: m.Partition, Offset: m.Offset, Key: m.Key, Value: m.Value, Time: m.Time}
	for _, h := range m.Headers {
		r.Headers = append(r.Headers, driver.Header{Key: h.Key, Value: h.Value})
	}
	return r
}

func (c client) Read(topic string, count int, each func(*driver.Record) error) error {
	ends, err := c.Ends(topic)
	if err != nil {
		return err
	}
	ctx, cancel := background()
	defer cancel()
	for p, end := range ends {
		r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{c.broker}, Topic: topic, Partition: p,
			MaxWait: 100 * time.Millisecond})
		defer r.Close()
		for range end {
			m, err := r.ReadMessage(ctx)
			if err != nil {
				return err
			}
			if err := each(record(m)); err != nil {
				return err
			}
			count--
		}
	}
	if count != 0 {
		return io.ErrUnexpectedEOF
	}
	return nil
}

func (c client) offsets(topic string, of func(p int) kafka.OffsetRequest, found func(kafka.PartitionOffsets) int64) (map[int]int64, error) {
	ctx, cancel := background()
	defer cancel()
	var ask []kafka.OffsetRequest
	for p := range driver.Partitions {
		ask = append(ask, of(p))
	}
	answer, err := c.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: ask}})
	if err != nil {
		return nil, err
	}
	offsets := map[int]int64{}
	for _, o := range answer.Topics[topic] {
		if o.Error != nil {
			return nil, o.Error
		}
		offsets[o.Partition] = found(o)
	}
	return offsets, nil
}

func (c client) Ends(topic string) (map[int]int64, error) {
	return c.offsets(topic, kafka.LastOffsetOf, func(o kafka.PartitionOffsets) int64 { return o.LastOffset })
}

func (c client) At(topic string, when time.Time) (map[int]int64, error) {
	return c.offsets(topic, func(p int) kafka.OffsetRequest { return kafka.TimeOffsetOf(p, when) },
		func(o kafka.PartitionOffsets) int64 {
			for offset := range o.Offsets {
				return offset
			}
			return -1
		})
}

func (c client) Committed(topic string) (map[int]int64, error) {
	ctx, cancel := background()
	defer cancel()
	answer, err := c.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: topic, Topics: map[string][]int{topic: {0, 1, 2}}})
	if err != nil {
		return nil, err
	}
	found := map[int]int64{}
	for _, o := range answer.Topics[topic] {
		found[o.Partition] = max(o.CommittedOffset, 0)
	}
	return found, answer.Error
}

type member struct {
	*kafka.Reader
	client client
	read   *kafka.Message
}

func (c client) Join(topic string) (driver.Member, error) {
	return &member{client: c, Reader: kafka.NewReader(kafka.ReaderConfig{Brokers: []string{c.broker}, GroupID: topic, Topic: topic,
		MaxWait: 100 * time.Millisecond, SessionTimeout: 6 * time.Second, HeartbeatInterval: 500 * time.Millisecond,
		StartOffset: kafka.FirstOffset})}, nil
}

// The reader does not tell: what the group's first member has, once the group is stable.
func (m *member) Assigned() int {
	ctx, cancel := background()
	defer cancel()
	answer, err := m.client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{m.Config().GroupID}})
	if err != nil || answer.Groups[0].GroupState != "Stable" {
		return 0
	}
	n := 0
	for _, t := range answer.Groups[0].Members[0].MemberAssignments.Topics {
		n += len(t.Partitions)
	}
	return n
}

func (m *member) Poll() (*driver.Record, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	one, err := m.FetchMessage(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m.read = &one
	return record(one), nil
}

func (m *member) Commit() error {
	ctx, cancel := background()
	defer cancel()
	return m.CommitMessages(ctx, *m.read)
}

func main() {
	driver.Main(func(broker string) (driver.Client, error) {
		return client{broker, &kafka.Client{Addr: kafka.TCP(broker), Timeout: driver.Timeout}}, nil
	})
}
