// Spill: words of activations on their way to card memory, in pages, and what the chip keeps to
// know them again.
//
//   words -> padded to whole pages -> cipher (of lk_lock_chain, sealing) -> FIFO -> AXI4 write
//                                        +-> tag, and the number of the sealing: kept here
//
// A page is sealed under the key of the run with its own number in the area and the number of the
// sealing as IV; tags and numbers never leave the chip. So a page that comes back is the one that
// was written to this place last, in this run, or fails: changed, moved and older pages alike.
//
// active_i (level) opens the unit; its rising edge takes page_i, where the first word goes. The
// last word comes with sl_last_i; the rest of its page is sealed as zeros. After that, active_i may
// fall when idle_o is high. bad_o: a page beyond limit_i was wanted; nothing of it is written.
//
// The cipher cannot be held back: a beat goes in when a place of the FIFO is free for it.
// flush_i (level) drops everything; a burst whose address is out is filled up with beats that write
// nothing (WSTRB = 0). idle_o: nothing is under way and no response is due.
module lk_spill #(
  parameter bit Locked = 1'b1  // without the cipher no tags are kept
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         flush_i,
  input  logic         active_i,
  input  logic [31:0]  page_i,
  input  logic [31:0]  limit_i,       // pages of the area
  input  logic [63:0]  addr_i,        // of the area
  output logic         idle_o,
  output logic         bad_o,         // sticky until the flush
  output logic         bus_error_o,   // pulse: a burst was answered with an error
  // words to seal
  input  logic         sl_valid_i,
  output logic         sl_ready_o,
  input  logic [511:0] sl_data_i,
  input  logic         sl_last_i,
  // to the cipher and back
  output logic         hdr_valid_o,
  input  logic         hdr_ready_i,
  output logic [95:0]  hdr_iv_o,
  output logic         pt_valid_o,
  input  logic         pt_ready_i,
  output logic [511:0] pt_data_o,
  input  logic         ct_valid_i,
  input  logic [511:0] ct_data_i,
  input  logic         tag_valid_i,
  input  logic [127:0] tag_i,
  // what is known of a page, in the next cycle
  input  logic         look_i,
  input  logic [31:0]  look_page_i,
  output logic [95:0]  look_iv_o,
  output logic [127:0] look_tag_o,
  // AXI4 write
  output logic         m_awvalid_o,
  input  logic         m_awready_i,
  output logic [63:0]  m_awaddr_o,
  output logic [7:0]   m_awlen_o,
  output logic         m_wvalid_o,
  input  logic         m_wready_i,
  output logic [511:0] m_wdata_o,
  output logic [63:0]  m_wstrb_o,
  output logic         m_wlast_o,
  input  logic         m_bvalid_i,
  output logic         m_bready_o,
  input  logic [1:0]   m_bresp_i
);
  import lk_pkg::*;

  localparam int unsigned Depth = 32;  // more than the cipher holds
  localparam int unsigned Cw    = $clog2(Depth) + 1;
  localparam int unsigned Bw    = $clog2(PageBeats);
  localparam int unsigned Pw    = $clog2(MaxSpillPages);

  // The number of a sealing: how many pages were sealed before, under whatever key.
  function automatic logic [95:0] iv_of(input logic [31:0] page, input logic [31:0] number);
    logic [95:0] be, iv;
    be = {page, 32'd0, number};
    for (int unsigned i = 0; i < 12; i++) iv[8*i +: 8] = be[8*(11-i) +: 8];
    return iv;
  endfunction

  // ---- Words to pages ---------------------------------------------------------------------------
  logic          active_q, begins;
  logic          open_q;      // words are still to come
  logic          pad_q;       // the last word was taken, its page is not full
  logic [1:0]    ahead_q;     // headers that were taken, of this page and the next
  logic [Bw-1:0] beat_q;
  logic [31:0]   page_q, number_q, head_page;
  logic          in_range, has_beat, take, page_end;
  logic [Cw-1:0] owed_q;      // places of the FIFO that are taken or promised
  logic          w_take;

  assign begins      = active_i && !active_q;
  assign head_page   = page_q + 32'(ahead_q);
  assign in_range    = head_page < limit_i && head_page < 32'(MaxSpillPages);
  assign has_beat    = active_q && (pad_q || (open_q && sl_valid_i));
  // The next page's header goes ahead, to no harm if there is no next page: the key of the run
  // leaves the cipher with what is queued there.
  assign hdr_valid_o = active_q && (open_q || (pad_q && ahead_q == '0)) && in_range &&
                       !ahead_q[1] && !flush_i;
  assign hdr_iv_o    = iv_of(head_page, number_q + 32'(ahead_q));
  assign pt_valid_o  = has_beat && ahead_q != '0 && owed_q != Cw'(Depth) && !flush_i;
  assign pt_data_o   = pad_q ? '0 : sl_data_i;
  assign take        = pt_valid_o && pt_ready_i;
  assign sl_ready_o  = take && !pad_q;
  assign page_end    = take && beat_q == Bw'(PageBeats - 1);

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      active_q <= 1'b0;
      open_q   <= 1'b0;
      pad_q    <= 1'b0;
      ahead_q  <= '0;
      beat_q   <= '0;
      page_q   <= '0;
      number_q <= '0;
      owed_q   <= '0;
      bad_o    <= 1'b0;
    end else if (flush_i) begin
      active_q <= 1'b0;
      open_q   <= 1'b0;
      pad_q    <= 1'b0;
      ahead_q  <= '0;
      beat_q   <= '0;
      owed_q   <= '0;
      bad_o    <= 1'b0;
      number_q <= number_q + 32'(ahead_q);  // a header that was taken has used its number
    end else begin
      active_q <= active_i;
      owed_q   <= owed_q + Cw'(take) - Cw'(w_take);
      if (begins) begin
        page_q <= page_i;
        open_q <= 1'b1;
      end
      if (has_beat && ahead_q == '0 && !in_range) bad_o <= 1'b1;
      ahead_q <= ahead_q + 2'(hdr_valid_o && hdr_ready_i) - 2'(page_end);
      if (!active_i) ahead_q <= '0;
      if (take) begin
        beat_q <= beat_q + 1'b1;
        if (!pad_q && sl_last_i) begin
          open_q <= 1'b0;
          pad_q  <= !page_end;
        end
      end
      if (page_end) begin
        pad_q    <= 1'b0;
        page_q   <= page_q + 1'b1;
        number_q <= number_q + 1'b1;
      end
    end
  end

  // ---- Tags and numbers -------------------------------------------------------------------------
  logic [31:0] ct_page_q;   // page whose ciphertext comes now
  logic [2:0]  tags_due_q;  // pages begun whose tag is still to come
  if (Locked) begin : gen_tags
    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) tags_due_q <= '0;
      else if (flush_i) tags_due_q <= '0;
      else tags_due_q <= tags_due_q + 3'(take && beat_q == '0) - 3'(tag_valid_i);
    end

    // SEC_CM: SPILL.TAGS_ON_CHIP
    logic [159:0] mem [MaxSpillPages];
    logic [159:0] known_q;
    logic [31:0]  tag_page_q, tag_number_q, look_page_q;

    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) begin
        tag_page_q   <= '0;
        tag_number_q <= '0;
      end else if (begins) begin
        tag_page_q   <= page_i;
        tag_number_q <= number_q;
      end else if (tag_valid_i) begin
        tag_page_q   <= tag_page_q + 1'b1;
        tag_number_q <= tag_number_q + 1'b1;
      end
    end
    always_ff @(posedge clk_i) begin
      if (tag_valid_i) mem[tag_page_q[Pw-1:0]] <= {tag_number_q, tag_i};
    end
    always_ff @(posedge clk_i) begin
      if (look_i) begin
        known_q     <= mem[look_page_i[Pw-1:0]];
        look_page_q <= look_page_i;
      end
    end
    assign look_iv_o  = iv_of(look_page_q, known_q[159:128]);
    assign look_tag_o = known_q[127:0];
  end else begin : gen_no_tags
    logic unused_tags;
    assign tags_due_q  = '0;
    assign look_iv_o   = '0;
    assign look_tag_o  = '0;
    assign unused_tags = ^{tag_valid_i, tag_i, look_i, look_page_i};
  end

  // ---- Pages to bursts --------------------------------------------------------------------------
  logic          fifo_valid, unused_ready;
  logic [511:0]  fifo_data;
  logic [Cw-1:0] unused_level;
  logic          dropping_q;
  logic [Bw-1:0] ct_beat_q, w_beat_q;
  logic          page_due_q, aw_issue, aw_ready, w_issue, w_ready;
  logic [7:0]    due_q;       // beats that bursts still owe, whose address is out
  logic [2:0]    answers_q;   // bursts that are not yet answered

  lk_fifo #(.Width(512), .Depth(Depth)) u_fifo (
    .clk_i, .rst_ni, .clear_i(flush_i),
    .valid_i(ct_valid_i && !flush_i), .ready_o(unused_ready), .data_i(ct_data_i),
    .valid_o(fifo_valid), .ready_i(w_take), .data_o(fifo_data), .level_o(unused_level)
  );

  // The address of a page goes out with its first beat of ciphertext, one burst ahead at most.
  assign aw_issue = page_due_q && due_q <= 8'(PageBeats) && answers_q != '1 &&
                    !flush_i && !dropping_q;
  assign w_issue  = due_q != '0 && (dropping_q || fifo_valid) && !(flush_i && !dropping_q);
  assign w_take   = w_issue && w_ready && !dropping_q;

  lk_skid #(.Width(64)) u_address (
    .clk_i, .rst_ni, .valid_i(aw_issue), .ready_o(aw_ready),
    .data_i(addr_i + {20'd0, ct_page_q, 12'd0}),
    .valid_o(m_awvalid_o), .ready_i(m_awready_i), .data_o(m_awaddr_o)
  );
  assign m_awlen_o = 8'(PageBeats - 1);

  logic write;
  lk_skid #(.Width(514)) u_write (
    .clk_i, .rst_ni, .valid_i(w_issue), .ready_o(w_ready),
    .data_i({w_beat_q == Bw'(PageBeats - 1), !dropping_q, dropping_q ? 512'd0 : fifo_data}),
    .valid_o(m_wvalid_o), .ready_i(m_wready_i), .data_o({m_wlast_o, write, m_wdata_o})
  );
  assign m_wstrb_o   = {64{write}};
  assign m_bready_o  = 1'b1;
  assign bus_error_o = m_bvalid_i && m_bresp_i[1];

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      dropping_q <= 1'b0;
      ct_beat_q  <= '0;
      ct_page_q  <= '0;
      page_due_q <= 1'b0;
      w_beat_q   <= '0;
      due_q      <= '0;
      answers_q  <= '0;
    end else begin
      due_q     <= due_q + (aw_issue && aw_ready ? 8'(PageBeats) : 8'd0) - 8'(w_issue && w_ready);
      answers_q <= answers_q + 3'(aw_issue && aw_ready) - 3'(m_bvalid_i && m_bready_o);
      if (w_issue && w_ready) w_beat_q <= w_beat_q + 1'b1;
      if (flush_i) begin
        dropping_q <= due_q != '0;
        ct_beat_q  <= '0;
        page_due_q <= 1'b0;
      end else begin
        if (due_q == '0) dropping_q <= 1'b0;
        if (begins) ct_page_q <= page_i;
        if (ct_valid_i) begin
          ct_beat_q <= ct_beat_q + 1'b1;
          if (ct_beat_q == '0) page_due_q <= 1'b1;
        end
        if (aw_issue && aw_ready) begin
          page_due_q <= 1'b0;
          ct_page_q  <= ct_page_q + 1'b1;
        end
      end
    end
  end

  assign idle_o = answers_q == '0 && due_q == '0 && owed_q == '0 && !has_beat && tags_due_q == '0 &&
                  !page_due_q && !open_q && !m_awvalid_o && !m_wvalid_o;

`ifdef VERILATOR
  always_ff @(posedge clk_i) begin
    assert (!rst_ni || flush_i || !ct_valid_i || unused_ready)
      else $error("%m: no place for a beat");
    assert (!rst_ni || flush_i || !(ct_valid_i && ct_beat_q == '0 && page_due_q && !aw_ready))
    else $error("%m: a page begins before the one before it has its address");
  end
`endif
endmodule
