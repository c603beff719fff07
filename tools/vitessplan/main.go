// Vitessplan prints how Vitess plans statements for a sharded keyspace, with the planner
// of vtgate itself and without a server.
//
// Standard input is JSON: {"vschema": KEYSPACE, "statements": {NAME: TEXT}}, where KEYSPACE
// is a vschema as Vitess reads it from a file. Standard output is JSON: {NAME: PLAN}. A PLAN
// has the steps that read or write, each with its operator and its variant, what those that read
// send, and what directives say, or an error.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"vitess.io/vitess/go/json2"
	"vitess.io/vitess/go/test/vschemawrapper"
	querypb "vitess.io/vitess/go/vt/proto/query"
	vschemapb "vitess.io/vitess/go/vt/proto/vschema"
	"vitess.io/vitess/go/vt/sqlparser"
	"vitess.io/vitess/go/vt/vtenv"
	"vitess.io/vitess/go/vt/vtgate/engine"
	"vitess.io/vitess/go/vt/vtgate/planbuilder"
	"vitess.io/vitess/go/vt/vtgate/vindexes"
)

// keyspace is the name that the wrapper of the schema takes for the default.
const keyspace = "main"

// Plan is how one statement is run.
type Plan struct {
	// Steps are the parts of the plan that read or write, in order: "Update EqualUnique".
	Steps []string `json:"steps,omitempty"`
	// Queries are what the reading ones send, in the same order.
	Queries []string `json:"queries,omitempty"`
	// Joined means that the gateway runs one of them for each row of another.
	Joined bool `json:"joined,omitempty"`
	// Alone means that tablets run it, whatever else they run.
	Alone bool `json:"alone,omitempty"`
	// Pulled means that the gateway puts the value of a subquery into the statement, as text of
	// no type if its schema tracking does not know the column (yet).
	Pulled bool `json:"pulled,omitempty"`
	// Error says why there is no plan.
	Error string `json:"error,omitempty"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "vitessplan:", err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	var input struct {
		VSchema    json.RawMessage   `json:"vschema"`
		Statements map[string]string `json:"statements"`
	}
	if err := json.NewDecoder(in).Decode(&input); err != nil {
		return fmt.Errorf("read statements: %w", err)
	}
	schema := new(vschemapb.Keyspace)
	if err := json2.UnmarshalPB(input.VSchema, schema); err != nil {
		return fmt.Errorf("read vschema: %w", err)
	}
	env := vtenv.NewTestEnv()
	v := vindexes.BuildVSchema(&vschemapb.SrvVSchema{
		Keyspaces: map[string]*vschemapb.Keyspace{keyspace: schema},
	}, env.Parser())
	if err := v.Keyspaces[keyspace].Error; err != nil {
		return fmt.Errorf("vschema: %w", err)
	}
	w, err := vschemawrapper.NewVschemaWrapper(env, v, planbuilder.TestBuilder)
	if err != nil {
		return err
	}
	w.Keyspace = v.Keyspaces[keyspace].Keyspace
	plans := make(map[string]Plan, len(input.Statements))
	for name, text := range input.Statements {
		plans[name] = plan(w, text)
	}
	return json.NewEncoder(out).Encode(plans)
}

// parameterized returns the statement with a parameter for each literal, as vtgate plans it,
// and what its directives say.
func parameterized(w *vschemawrapper.VSchemaWrapper, text string) (string, sqlparser.QueryHints, error) {
	stmt, known, err := w.Environment().Parser().Parse2(text)
	if err != nil {
		return "", sqlparser.QueryHints{}, err
	}
	hints, err := sqlparser.BuildQueryHints(stmt)
	if err != nil {
		return "", hints, err
	}
	reserved, values := sqlparser.NewReservedVars("vtg", known), make(map[string]*querypb.BindVariable)
	out, err := sqlparser.Normalize(stmt, reserved, values, true, keyspace, sqlparser.SQLSelectLimitUnset, "", nil,
		w.GetForeignKeyChecksState(), w)
	if err != nil {
		return "", hints, err
	}
	return sqlparser.String(out.AST), hints, nil
}

func plan(w *vschemawrapper.VSchemaWrapper, text string) Plan {
	text, hints, err := parameterized(w, text)
	p := Plan{Alone: hints.Consolidator == querypb.ExecuteOptions_CONSOLIDATOR_DISABLED}
	if err != nil {
		p.Error = err.Error()
		return p
	}
	built, err := planbuilder.TestBuilder(text, w, keyspace)
	if err != nil {
		p.Error = err.Error()
		return p
	}
	if built.Instructions == nil {
		p.Error = "no plan"
		return p
	}
	engine.WalkPrimitiveDescription(engine.PrimitiveToPlanDescription(built.Instructions, nil),
		func(d engine.PrimitiveDescription) {
			switch d.OperatorType {
			case "Join":
				p.Joined = true
			case "UncorrelatedSubquery":
				p.Pulled = p.Pulled || d.Variant == "PulloutValue"
			case "Insert", "Update", "Delete": // with inputs or without
				p.Steps = append(p.Steps, d.OperatorType+" "+d.Variant)
			default:
				if len(d.Inputs) == 0 {
					if query, ok := d.Other["Query"].(string); ok {
						p.Queries = append(p.Queries, query)
					}
					p.Steps = append(p.Steps, d.OperatorType+" "+d.Variant)
				}
			}
		})
	return p
}
