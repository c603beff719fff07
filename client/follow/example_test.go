package follow_test

import (
	"context"
	"database/sql"
	"log"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/liveblocks-mirror/liveblocks-mirror/client/follow"
	mirrorv1 "github.com/liveblocks-mirror/liveblocks-mirror/gen/liveblocks/mirror/v1"
)

func ExampleRun() {
	conn, err := grpc.NewClient("127.0.0.1:9090", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	err = follow.Run(context.Background(), mirrorv1.NewChangeServiceClient(conn),
		follow.Config{Store: follow.File("token")},
		func(_ context.Context, response *mirrorv1.WatchChangesResponse) error {
			for _, change := range response.GetChanges().GetChanges() {
				log.Println(change.GetKind(), change.GetRoomId(), change.GetResourceId())
			}
			return nil
		})
	log.Print(err)
}

// What the consumer makes of the changes and the token are kept in one transaction, so each
// change counts exactly once. The table follow_token has one row from the beginning, whose
// token is empty.
func ExampleRun_transaction() {
	var (
		ctx    context.Context
		client mirrorv1.ChangeServiceClient
		db     *sql.DB // of the consumer
	)
	var token string
	if err := db.QueryRowContext(ctx, "select token from follow_token").Scan(&token); err != nil {
		log.Fatal(err)
	}
	request := &mirrorv1.WatchChangesRequest{}
	if token != "" {
		request.Start = &mirrorv1.WatchChangesRequest_Token{Token: token}
	}
	err := follow.Run(ctx, client, follow.Config{Request: request},
		func(ctx context.Context, response *mirrorv1.WatchChangesResponse) error {
			tx, err := db.BeginTx(ctx, nil)
			if err != nil {
				return err
			}
			defer func() { _ = tx.Rollback() }() // after Commit it does nothing
			for _, change := range response.GetChanges().GetChanges() {
				if _, err := tx.ExecContext(ctx, "insert into seen (room_id, kind, resource_id, revision) values ($1, $2, $3, $4)",
					change.GetRoomId(), change.GetKind(), change.GetResourceId(), change.GetRevision()); err != nil {
					return err
				}
			}
			// Also without changes: the token moves on past what the filters leave out.
			if _, err := tx.ExecContext(ctx, "update follow_token set token = $1", response.GetToken()); err != nil {
				return err
			}
			return tx.Commit()
		})
	log.Print(err)
}
