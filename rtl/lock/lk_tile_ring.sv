// Verify-before-use buffer: a ring of pages between lk_gcm and everything that uses plaintext.
//
// A page is written beat by beat, waits for its verdict, and is readable only after a verdict that
// passed, up to the beat that was written last. After a verdict that failed, neither that page nor
// any later one is ever readable, no slot is free any more and fail_o stays up, until clear_i or
// wipe_i; pages verified before it stay readable.
//
// Use: take a slot (slot_take_i while slot_free_o) before asking for a page, because the decryption
// pipeline cannot be held back. Beats arrive in order, wr_last_i on the last one; a verdict comes
// after its page's first beat. Broken order (no slot taken, wr_last_i on the wrong beat, verdict
// without a page) counts as a failed page. A slot is free again when the last beat of its page has
// been read.
// Read side: ready/valid, one beat a cycle without a gap across page boundaries. A page's first
// beat is on rd_data_o three cycles after its verdict.
//
// Two counts say which pages may be read: verified_q goes up with verdict_ok_i and down with the
// end of a page that is read; judged_q goes up with !verdict_bad_i, and the page part of the read
// pointer is subtracted from it. They share no wire but the verdict's valid. A difference stops
// reading and counts as broken order, and so does a fetch that the second count does not allow.
//
// clear_i drops all pages in one cycle and leaves the RAM's content (unreadable). wipe_i (a pulse
// or a level; its rising edge counts) also clears, then a walker overwrites the RAM and its output
// latch with zeros, NumSlots*BeatsPerPage + 1 cycles with wipe_busy_o; meanwhile no slot is free
// and writes and verdicts are ignored. Reset starts a wipe too, since block RAM keeps its content
// through reset. The source of beats must be stopped by whoever clears or wipes, or leftovers count
// as broken order.
//
// fail_page_o: ordinal of the failed page, counted from 0 since the last clear or wipe.
// Storage: one simple dual-port RAM of 512 bits, 8 RAMB36 for the default 8 x 64 beats.
module lk_tile_ring #(
  parameter int unsigned NumSlots     = 8,
  parameter int unsigned BeatsPerPage = 64
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         clear_i,
  input  logic         wipe_i,
  output logic         wipe_busy_o,
  output logic         slot_free_o,
  input  logic         slot_take_i,
  input  logic         wr_valid_i,
  input  logic [511:0] wr_data_i,
  input  logic         wr_last_i,
  input  logic         verdict_valid_i,
  input  logic         verdict_ok_i,
  input  logic         verdict_bad_i,  // must be the complement
  output logic         fail_o,
  output logic [31:0]  fail_page_o,
  output logic         rd_valid_o,
  input  logic         rd_ready_i,
  output logic [511:0] rd_data_o,
  output logic         rd_first_o,
  output logic         rd_last_o
);
  localparam int unsigned Depth = NumSlots * BeatsPerPage;
  localparam int unsigned Aw    = $clog2(Depth);
  localparam int unsigned Bw    = $clog2(BeatsPerPage);
  localparam int unsigned Cw    = $clog2(NumSlots + 1);

  if (NumSlots < 2 || (NumSlots & (NumSlots - 1)) != 0) begin : gen_bad_slots
    $fatal(1, "%m: NumSlots must be a power of two and at least 2, got %0d", NumSlots);
  end
  if (BeatsPerPage < 2 || (BeatsPerPage & (BeatsPerPage - 1)) != 0) begin : gen_bad_beats
    $fatal(1, "%m: BeatsPerPage must be a power of two and at least 2, got %0d", BeatsPerPage);
  end

  // ---- wipe walker ------------------------------------------------------------------------------
  logic          busy_q, wipe_seen_q;
  logic [Aw:0]   walk_q;  // Depth: the RAM is zero, read one word into the output latch
  logic          walk_write, walk_read;

  assign wipe_busy_o = busy_q;
  assign walk_write  = busy_q && !walk_q[Aw];
  assign walk_read   = busy_q && walk_q[Aw];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      busy_q      <= 1'b1;
      walk_q      <= '0;
      wipe_seen_q <= 1'b0;
    end else begin
      wipe_seen_q <= wipe_i;
      if (wipe_i && !wipe_seen_q) begin
        busy_q <= 1'b1;
        walk_q <= '0;
      end else if (busy_q) begin
        walk_q <= walk_q + 1'b1;
        if (walk_read) busy_q <= 1'b0;
      end
    end
  end

  logic drop;  // all pages are forgotten at this edge
  assign drop = clear_i || wipe_i || busy_q;

  // ---- page accounting --------------------------------------------------------------------------
  logic [Cw-1:0]  taken_q;     // slots reserved or filled
  logic [Cw-1:0]  filled_q;    // of those, pages whose first beat has been written
  logic [Cw-1:0]  waiting_q;   // pages without a verdict whose first beat has been written
  logic [Aw:0]    wr_ptr_q;    // one bit more, so that page parts count modulo 2 * NumSlots
  logic [Aw:0]    rd_ptr_q;
  logic [31:0]    page_q;      // verdicts so far
  // Pages that may be read and have not been; verdicts that passed, modulo 2 * NumSlots.
  (* keep = "true" *) logic [Cw-1:0] verified_q;
  (* keep = "true" *) logic [Cw-1:0] judged_q;

  logic take, wr_ok, wr_first, wr_end, rd_end, freed, broken, fetch;
  logic verdict_fail, verdict_pass, verdict_pass_b, unread, differ, count_bad;

  assign take      = slot_take_i && slot_free_o;
  assign wr_first  = wr_ptr_q[Bw-1:0] == '0;
  assign wr_end    = &wr_ptr_q[Bw-1:0];
  assign wr_ok     = wr_valid_i && !fail_o && !drop && (!wr_first || filled_q != taken_q);
  assign unread    = judged_q != rd_ptr_q[Aw:Bw];
  assign differ    = verified_q != judged_q - rd_ptr_q[Aw:Bw];
  assign count_bad = differ || (fetch && !unread);  // SEC_CM: RING.COUNT_DUP
  assign broken    = !drop
                     && ((wr_valid_i && ((wr_first && filled_q == taken_q) || wr_last_i != wr_end))
                         || (verdict_valid_i && waiting_q == '0) || count_bad);
  // SEC_CM: RING.VERIFY_BEFORE_USE
  assign verdict_pass   = verdict_valid_i && verdict_ok_i && waiting_q != '0 && !fail_o && !broken;
  assign verdict_pass_b = verdict_valid_i && !verdict_bad_i && waiting_q != '0 && !fail_o
                          && !broken;
  assign verdict_fail   = verdict_valid_i && (!verdict_ok_i || verdict_bad_i);

  assign slot_free_o = taken_q != Cw'(NumSlots) && !busy_q && !fail_o;
  assign rd_end      = fetch && (&rd_ptr_q[Bw-1:0]);
  assign freed       = rd_valid_o && rd_ready_i && rd_last_o;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      taken_q      <= '0;
      filled_q     <= '0;
      waiting_q    <= '0;
      verified_q   <= '0;
      judged_q     <= '0;
      wr_ptr_q     <= '0;
      rd_ptr_q     <= '0;
      page_q       <= '0;
      fail_o       <= 1'b0;
      fail_page_o  <= '0;
    end else if (drop) begin
      taken_q      <= '0;
      filled_q     <= '0;
      waiting_q    <= '0;
      verified_q   <= '0;
      judged_q     <= '0;
      wr_ptr_q     <= '0;
      rd_ptr_q     <= '0;
      page_q       <= '0;
      fail_o       <= 1'b0;
      fail_page_o  <= '0;
    end else begin
      taken_q  <= taken_q + Cw'(take) - Cw'(freed);
      filled_q <= filled_q + Cw'(wr_ok && wr_first) - Cw'(freed);
      if (wr_ok) wr_ptr_q <= wr_ptr_q + 1'b1;
      waiting_q <= waiting_q + Cw'(wr_ok && wr_first)
                   - Cw'(verdict_valid_i && waiting_q != '0);
      if (verdict_pass != rd_end) begin
        verified_q <= verdict_pass ? verified_q + 1'b1 : verified_q - 1'b1;
      end
      if (verdict_pass_b) judged_q <= judged_q + 1'b1;
      if (fetch) rd_ptr_q <= rd_ptr_q + 1'b1;
      if (verdict_valid_i) page_q <= page_q + 32'd1;
      if (!fail_o && (broken || verdict_fail)) begin
        fail_o      <= 1'b1;
        fail_page_o <= page_q;
      end
    end
  end

  // ---- memory and read pipeline -----------------------------------------------------------------
  // The RAM's output latch is the first of two stages and keeps its word until the second takes it.
  logic [511:0] mem [Depth];
  logic [511:0] ram_q;
  logic         ram_valid_q, ram_first_q, ram_last_q, shift;

  assign shift = ram_valid_q && (!rd_valid_o || rd_ready_i);
  assign fetch = verified_q != '0 && rd_ptr_q != wr_ptr_q && !differ && !drop &&
                 (!ram_valid_q || shift);

  always_ff @(posedge clk_i) begin
    // SEC_CM: RING.WIPE
    if (walk_write || wr_ok) begin
      mem[walk_write ? walk_q[Aw-1:0] : wr_ptr_q[Aw-1:0]] <= walk_write ? '0 : wr_data_i;
    end
  end

  always_ff @(posedge clk_i) begin
    if (fetch || walk_read) ram_q <= mem[rd_ptr_q[Aw-1:0]];
  end

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      ram_valid_q <= 1'b0;
      ram_first_q <= 1'b0;
      ram_last_q  <= 1'b0;
      rd_valid_o  <= 1'b0;
      rd_first_o  <= 1'b0;
      rd_last_o   <= 1'b0;
    end else if (drop) begin
      ram_valid_q <= 1'b0;
      ram_first_q <= 1'b0;
      ram_last_q  <= 1'b0;
      rd_valid_o  <= 1'b0;
      rd_first_o  <= 1'b0;
      rd_last_o   <= 1'b0;
    end else begin
      if (fetch) begin
        ram_valid_q <= !count_bad;
        ram_first_q <= rd_ptr_q[Bw-1:0] == '0;
        ram_last_q  <= &rd_ptr_q[Bw-1:0];
      end else if (shift) begin
        ram_valid_q <= 1'b0;
      end
      if (shift) begin
        rd_valid_o <= 1'b1;
        rd_first_o <= ram_first_q;
        rd_last_o  <= ram_last_q;
      end else if (rd_ready_i) begin
        rd_valid_o <= 1'b0;
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (drop) rd_data_o <= '0;  // SEC_CM: RING.WIPE
    else if (shift) rd_data_o <= ram_q;
  end

`ifdef VERILATOR
  always_ff @(posedge clk_i) begin
    if (rst_ni && !drop) begin
      assert (!slot_take_i || slot_free_o) else $error("%m: slot taken but none is free");
      assert (filled_q <= taken_q && waiting_q <= filled_q) else $error("%m: page counts disagree");
      assert (!rd_valid_o || filled_q != '0) else $error("%m: beat without a page");
    end
  end
`endif
endmodule
