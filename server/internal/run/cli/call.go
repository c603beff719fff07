package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/liveblocks-mirror/liveblocks-mirror/gateway/apijson"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
	"github.com/liveblocks-mirror/liveblocks-mirror/server/internal/run/config"
)

// CallMethod is the command that makes any call of the API.
type CallMethod struct {
	Method  string   `arg:"" help:"Name of the method, such as ListRooms."`
	Request string   `arg:"" optional:"" default:"{}" help:"The request as JSON, such as {\"roomId\":\"a\"}."`
	Header  []string `name:"header" short:"H" sep:"none" placeholder:"NAME:VALUE" help:"Send this metadata with the call. May be given several times."`

	// Its answers are always JSON.
	config.Client `group:"Service"`
}

// Run makes the call, and prints each answer as a line of JSON.
func (c *CallMethod) Run(ctx context.Context, std Streams) error {
	method, err := methodOf(c.Method)
	if err != nil {
		return err
	}
	request, err := newMessage(method.Input())
	if err != nil {
		return err
	}
	if err := apijson.Unmarshal([]byte(c.Request), request); err != nil {
		return &config.Error{Setting: "the request", Problem: fmt.Sprintf("is not one of %s: %v", method.Name(), err)}
	}
	var headers []string
	for _, header := range c.Header {
		name, value, ok := strings.Cut(header, ":")
		if !ok {
			return &config.Error{Setting: "--header", Problem: fmt.Sprintf("is %q; it must be a name, a colon and a value",
				header)}
		}
		headers = append(headers, strings.TrimSpace(name), strings.TrimSpace(value))
	}
	ctx = metadata.AppendToOutgoingContext(ctx, headers...)
	call := Call{Client: c.Client, Format: Format{JSON: true}}
	return call.run(ctx, 0, func(ctx context.Context, s *service) error {
		return invoke(ctx, s, method, request, func(answer proto.Message) error { return call.Print(std.Out, answer, nil) })
	})
}

// invoke makes a call and passes on each answer.
func invoke(ctx context.Context, s *service, method protoreflect.MethodDescriptor, request proto.Message,
	answered func(proto.Message) error,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true},
		fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name()))
	if err != nil {
		return err
	}
	if err := errors.Join(stream.SendMsg(request), stream.CloseSend()); err != nil && !errors.Is(err, io.EOF) {
		return err // with io.EOF, what is received says why
	}
	for {
		answer, err := newMessage(method.Output())
		if err != nil {
			return err
		}
		switch err := stream.RecvMsg(answer); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := answered(answer); err != nil {
			return err
		}
	}
}

// methodOf finds a method by its name, whatever its service.
func methodOf(name string) (protoreflect.MethodDescriptor, error) {
	var names []string
	var found protoreflect.MethodDescriptor
	pkg := mirrorv1.File_liveblocks_mirror_v1_mirror_service_proto.Package()
	protoregistry.GlobalFiles.RangeFilesByPackage(pkg, func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				if names = append(names, string(methods.Get(j).Name())); names[len(names)-1] == name {
					found = methods.Get(j)
				}
			}
		}
		return true
	})
	if found != nil {
		return found, nil
	}
	slices.Sort(names)
	return nil, &config.Error{Setting: "the method", Problem: fmt.Sprintf("is %q; it must be one of %s", name,
		strings.Join(names, ", "))}
}

func newMessage(message protoreflect.MessageDescriptor) (proto.Message, error) {
	typ, err := protoregistry.GlobalTypes.FindMessageByName(message.FullName())
	if err != nil {
		return nil, err
	}
	return typ.New().Interface(), nil
}
