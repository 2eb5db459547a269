// Runs the sweeps: decides in which cycle the array takes which row, and with which weights.
//
// A sweep waits in the shadow place (sh_*) from the moment its weights are complete (full_i) until
// its first row is taken, which swaps the weights; then its remaining rows follow. Rows of the next
// sweep follow without a bubble if its weights are there.
//
// Read-modify-write distance: an accumulator word may be touched again 4 cycles after the last
// time. A sweep of R >= 4 rows keeps that by itself. After a shorter one the next sweep starts at
// the earliest 5 - R cycles after its last row. As a subtile takes at least 4 beats to load, this
// costs nothing while weights stream.
//
// Tiles are numbered modulo four, in order, and use the two banks in turn. The tile drained_i is
// the first that has not been drained: its rows and those of the next one find their banks free. A
// row of the one behind waits until drain_row_i says that the row which it replaces has been read;
// a row that is added to another waits for the whole drain, as does a later tile.
//
// When the drain of its tile is the next one as its first row is taken, the last sweep of a tile
// takes the drain along: follow_o marks its rows, and every one waits for follow_room_i. A tile of
// a single sweep has no need of it.
module lk_sweep #(
  parameter int unsigned ArrayN = 16
) (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        clear_i,
  // a subtile's weights became complete: its sweep
  input  logic        load_i,
  input  logic        load_first_i,
  input  logic        load_last_i,
  input  logic [1:0]  load_tile_i,
  input  logic [1:0]  load_ni_i,
  input  logic [9:0]  load_rows_i,
  input  logic [6:0]  load_nvalid_i,
  input  logic        full_i,
  input  logic [1:0]  drained_i,
  input  logic [8:0]  drain_row_i,
  input  logic        drain_next_i,  // the drain of tile drained_i is there and has not begun
  input  logic        follow_room_i,
  // rows
  input  logic        x_valid_i,
  input  logic [6:0]  x_kvalid_i,
  // this cycle
  output logic        take_o,     // a row is taken
  output logic        swap_o,     // and it is the first of its sweep
  output logic        ready_o,    // a row would be taken if there were one
  output logic        held_o,     // if its bank were free
  output logic        first_o,
  output logic        follow_o,
  output logic [1:0]  tile_o,
  output logic [1:0]  ni_o,
  output logic [8:0]  row_o,
  output logic        last_o,
  output logic [12:0] macs_o      // useful MACs of this row: real k bytes * real channels
);
  typedef struct packed {
    logic       first;
    logic       last;
    logic [1:0] tile;
    logic [1:0] ni;
    logic [9:0] rows;
    logic [6:0] nvalid;
  } sweep_t;

  sweep_t     sh_q, act_q, cur;
  logic       run_q;   // act_q has rows left
  logic [8:0] row_q;
  logic [1:0] gap_q;
  logic [1:0] ahead;   // of the first tile that has not been drained
  logic       free, may_run, follow, follow_q;

  assign cur     = run_q ? act_q : sh_q;
  assign ahead   = cur.tile - drained_i;
  assign follow  = run_q ? follow_q : cur.last && !cur.first && ahead == 2'd0 && drain_next_i;
  assign free    = (!ahead[1] || (!ahead[0] && cur.first && row_o < drain_row_i)) &&
                   (!follow || follow_room_i);
  assign may_run = !clear_i && (run_q || (full_i && gap_q == '0));
  assign ready_o = may_run && free;
  assign held_o  = may_run && !free;
  assign take_o  = ready_o && x_valid_i;
  assign swap_o  = take_o && !run_q;
  assign first_o = cur.first;
  assign tile_o  = cur.tile;
  assign follow_o = take_o && follow;
  assign ni_o    = cur.ni;
  assign row_o   = run_q ? row_q : '0;
  assign last_o  = 10'(row_o) + 10'd1 == cur.rows;
  assign macs_o  = take_o ? 13'(x_kvalid_i) * 13'(cur.nvalid) : '0;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      run_q <= 1'b0;
      row_q <= '0;
      gap_q <= '0;
    end else if (clear_i) begin
      run_q <= 1'b0;
      row_q <= '0;
      gap_q <= 2'd3;  // rows in flight are dropped, but their writes may be under way
    end else begin
      if (gap_q != '0) gap_q <= gap_q - 1'b1;
      if (take_o) begin
        run_q <= !last_o;
        row_q <= row_o + 1'b1;
        if (last_o && cur.rows < 10'd4) gap_q <= 2'(10'd4 - cur.rows);
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (take_o) follow_q <= follow;
    if (load_i) begin
      sh_q <= '{load_first_i, load_last_i, load_tile_i, load_ni_i, load_rows_i, load_nvalid_i};
    end
    if (swap_o) act_q <= sh_q;
  end

`ifdef VERILATOR
  always_ff @(posedge clk_i) begin
    if (rst_ni && load_i) begin
      assert (load_rows_i >= 10'd1 && 32'(load_rows_i) <= lk_pkg::AccRows)
      else $error("%m: a sweep has %0d rows", load_rows_i);
      assert (load_nvalid_i >= 7'd1 && 32'(load_nvalid_i) <= ArrayN)
      else $error("%m: a subtile has %0d real channels", load_nvalid_i);
    end
    if (rst_ni && take_o) begin
      assert (x_kvalid_i >= 7'd1 && 32'(x_kvalid_i) <= ArrayN)
      else $error("%m: a row has %0d real bytes", x_kvalid_i);
    end
  end
`endif
endmodule
