// Page fetcher: turns page requests into AXI4 bursts and brings each page's tag with it.
//
//   request {page, region, index} --> [page burst, 64 beats] [tag line burst, 4 beats = 16 tags]
//
// A page is one maximal burst on a 4 KiB boundary. Tags lie beside the pages, 16 bytes each, and
// come in lines of 16; all bursts share one AXI ID and come in the order of asking. A line is asked
// for before a page of the second half of the line before it or, at the latest, right behind the
// first page that needs it: a page's tag is needed at its end. The header of a page (its IV) is
// offered as soon as the page was asked for, its tag once its beat of the line has arrived.
//
//   IV bytes 0..3 version, 4..5 region, 6..11 index, each big-endian; formed here from the
//   authenticated manifest and descriptor, never read from memory.
//
// A page of the spill area (req_spilled_i) is number req_index_i there; its tag and IV are what
// lk_spill knows of it, asked for when its header is the next.
//
// The requester reserves a ring slot before it asks, so read data is always taken. With flush_i the
// data of bursts that are under way is dropped; idle_o tells when the last beat has come.
module lk_page_fetch #(
  parameter bit WithTags = 1'b1  // without the lock chain no tags are fetched
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         flush_i,
  input  logic         forget_i,      // pulse before a run: tag lines may lie elsewhere now
  output logic         idle_o,
  input  logic [63:0]  pages_addr_i,
  input  logic [63:0]  tags_addr_i,
  input  logic [63:0]  spill_addr_i,
  input  logic [31:0]  version_i,
  input  logic [31:0]  num_pages_i,   // nothing is fetched ahead beyond the package
  // requests
  input  logic         req_valid_i,
  output logic         req_ready_o,
  input  logic [31:0]  req_page_i,    // global page number
  input  logic [15:0]  req_region_i,
  input  logic [31:0]  req_index_i,   // page number within the region
  input  logic         req_spilled_i,
  // a page of the spill area: asked for in one cycle, there in the next
  output logic         look_o,
  output logic [31:0]  look_page_o,
  input  logic [95:0]  look_iv_i,
  input  logic [127:0] look_tag_i,
  // AXI4 read
  output logic         m_arvalid_o,
  input  logic         m_arready_i,
  output logic [63:0]  m_araddr_o,
  output logic [7:0]   m_arlen_o,
  input  logic         m_rvalid_i,
  output logic         m_rready_o,
  input  logic [511:0] m_rdata_i,
  input  logic [1:0]   m_rresp_i,
  input  logic         m_rlast_i,
  // page headers, then page data, in request order
  output logic         hdr_valid_o,
  input  logic         hdr_ready_i,
  output logic [95:0]  hdr_iv_o,
  output logic         hdr_tag_valid_o,
  input  logic         hdr_tag_ready_i,
  output logic [127:0] hdr_tag_o,
  output logic         data_valid_o,
  input  logic         data_ready_i,
  output logic [511:0] data_o,
  output logic         data_last_o,
  output logic         bus_error_o,   // pulse: a beat came with an error response
  output logic         beat_o         // pulse: a beat was taken from the bus
);
  // Tag lines; more than the lines of the pages that can be under way, and the one that is next.
  localparam int unsigned LineSlots = 16;
  localparam int unsigned LineBeats = 4;
  localparam int unsigned SlotW = $clog2(LineSlots);

  // --- Requests to bursts ----------------------------------------------------------------------
  // A line of tags that was asked for: which, where it goes, and its number in the order of asking.
  typedef struct packed {
    logic             known;
    logic [27:0]      line;  // page number / 16
    logic [SlotW-1:0] slot;
    logic [31:0]      number;
  } line_t;

  line_t       here_q, next_q, asked;
  logic [31:0] lines_asked_q;
  logic        in_here, in_next, new_line, want_next;
  logic        owed_q;        // here_q was not asked for yet: it is the next burst
  logic        order_ready, hdr_q_ready;
  logic        issue_line, issue_page;
  logic [27:0] ask_line;

  assign in_here    = here_q.known && here_q.line == req_page_i[31:4];
  assign in_next    = next_q.known && next_q.line == req_page_i[31:4];
  assign want_next  = in_here && req_page_i[3] &&
                      !(next_q.known && next_q.line == here_q.line + 1'b1) &&
                      {here_q.line + 1'b1, 4'd0} < num_pages_i;
  assign new_line   = WithTags && !req_spilled_i && !in_here && !in_next;
  assign issue_line = WithTags && (owed_q || (req_valid_i && !req_spilled_i && want_next)) &&
                      order_ready && !flush_i;
  assign issue_page = req_valid_i && !issue_line && !owed_q && order_ready && hdr_q_ready &&
                      !flush_i;
  assign ask_line   = owed_q ? here_q.line : here_q.line + 1'b1;
  assign asked      = '{known: 1'b1, line: new_line ? req_page_i[31:4] : ask_line,
                        slot: SlotW'(lines_asked_q), number: lines_asked_q};

  // An address that was offered on the bus stays until it is taken, also through a flush.
  logic        ar_ready;
  logic [63:0] ar_addr;
  logic [7:0]  ar_len;
  always_comb begin
    ar_addr = pages_addr_i + {20'd0, req_page_i, 12'd0};
    if (issue_line) ar_addr = tags_addr_i + {28'd0, ask_line, 8'd0};
    else if (req_spilled_i) ar_addr = spill_addr_i + {20'd0, req_index_i, 12'd0};
  end
  assign ar_len      = issue_line ? 8'(LineBeats - 1) : 8'(lk_pkg::PageBeats - 1);
  assign req_ready_o = issue_page && ar_ready;

  lk_skid #(.Width(72)) u_address (
    .clk_i, .rst_ni, .valid_i(issue_line || issue_page), .ready_o(ar_ready),
    .data_i({ar_len, ar_addr}), .valid_o(m_arvalid_o), .ready_i(m_arready_i),
    .data_o({m_arlen_o, m_araddr_o})
  );

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      here_q        <= '0;
      next_q        <= '0;
      lines_asked_q <= '0;
      owed_q        <= 1'b0;
    end else begin
      if (issue_line && ar_ready) begin
        lines_asked_q <= lines_asked_q + 1'b1;
        owed_q        <= 1'b0;
        if (!owed_q) next_q <= asked;
      end
      if (req_ready_o && !req_spilled_i && !in_here && in_next) begin
        here_q       <= next_q;
        next_q.known <= 1'b0;  // asked for anew when a later block comes back to it
      end
      if (req_ready_o && new_line) begin
        here_q       <= asked;
        owed_q       <= 1'b1;
        next_q.known <= 1'b0;  // or its place could be another line's when it is used
      end
      if (flush_i || forget_i) begin
        here_q.known <= 1'b0;
        next_q.known <= 1'b0;
        owed_q       <= 1'b0;
      end
    end
  end

  // --- Order of the bursts under way -----------------------------------------------------------
  logic order_valid, order_is_line, order_pop;
  logic [5:0] order_level;
  lk_fifo #(.Width(1), .Depth(32)) u_order (
    .clk_i, .rst_ni, .clear_i(1'b0),
    .valid_i((issue_line || issue_page) && ar_ready), .ready_o(order_ready), .data_i(issue_line),
    .valid_o(order_valid), .ready_i(order_pop), .data_o(order_is_line), .level_o(order_level)
  );

  assign m_rready_o   = order_valid && (order_is_line || data_ready_i || flush_i);
  assign order_pop    = m_rvalid_i && m_rready_o && m_rlast_i;
  assign data_valid_o = m_rvalid_i && order_valid && !order_is_line && !flush_i;
  assign data_o       = m_rdata_i;
  assign data_last_o  = m_rlast_i;
  assign beat_o       = m_rvalid_i && m_rready_o;
  assign bus_error_o  = beat_o && m_rresp_i[1];
  assign idle_o       = order_level == '0 && !owed_q;

  // --- Headers and tags ------------------------------------------------------------------------
  // Line number n goes to slot n mod LineSlots; a tag waits until its beat of the line has come.
  logic [511:0]     line_mem [LineSlots * LineBeats];
  logic [1:0]       fill_beat_q;
  logic [31:0]      lines_here_q;

  logic         hq_valid, hq_spilled, unused_hdr_ready;
  logic [31:0]  hq_index;
  logic [15:0]  hq_region;
  logic [5:0]   unused_hdr_level;
  lk_fifo #(.Width(1 + 32 + 16), .Depth(32)) u_headers (
    .clk_i, .rst_ni, .clear_i(flush_i),
    .valid_i(req_ready_o), .ready_o(unused_hdr_ready),
    .data_i({req_spilled_i, req_index_i, req_region_i}),
    .valid_o(hq_valid), .ready_i(hdr_valid_o && hdr_ready_i),
    .data_o({hq_spilled, hq_index, hq_region}), .level_o(unused_hdr_level)
  );

  logic             tq_valid, tq_spilled;
  logic [SlotW-1:0] tq_slot;
  logic [3:0]       tq_tag;
  logic [31:0]      tq_line_no;
  line_t            line;  // of the page that is asked for
  logic [5:0]       unused_tag_level;
  assign line = in_here ? here_q : in_next ? next_q : asked;
  lk_fifo #(.Width(1 + SlotW + 4 + 32), .Depth(32)) u_tags (
    .clk_i, .rst_ni, .clear_i(flush_i),
    .valid_i(req_ready_o), .ready_o(hdr_q_ready),
    .data_i({req_spilled_i, line.slot, req_page_i[3:0], line.number}),
    .valid_o(tq_valid), .ready_i(hdr_tag_valid_o && hdr_tag_ready_i),
    .data_o({tq_spilled, tq_slot, tq_tag, tq_line_no}), .level_o(unused_tag_level)
  );

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      fill_beat_q  <= '0;
      lines_here_q <= '0;
    end else begin
      if (m_rvalid_i && m_rready_o && order_is_line) begin
        fill_beat_q <= fill_beat_q + 1'b1;
        if (m_rlast_i) begin
          fill_beat_q  <= '0;
          lines_here_q <= lines_here_q + 1'b1;
        end
      end
    end
  end

  always_ff @(posedge clk_i) begin
    if (m_rvalid_i && m_rready_o && order_is_line) begin
      line_mem[{lines_here_q[SlotW-1:0], fill_beat_q}] <= m_rdata_i;
    end
  end

  logic         looked_q;    // look_iv_i is of the header that is the next
  logic         look_due_q;  // look_tag_i is of a header that was taken; its tag was not yet
  logic [511:0] tag_beat;
  logic [31:0]  lines_past;  // lines that came since the tag's own, modulo 2^32; -1: it comes now
  logic         tag_here;
  assign tag_beat    = line_mem[{tq_slot, tq_tag[3:2]}];
  assign lines_past  = lines_here_q - tq_line_no - 1'b1;
  assign tag_here    = !lines_past[31] || (&lines_past && fill_beat_q > tq_tag[3:2]);
  assign hdr_valid_o = hq_valid && (!WithTags || !hq_spilled || looked_q);
  assign hdr_tag_valid_o = tq_valid && (!WithTags || (tq_spilled ? look_due_q : tag_here));
  assign hdr_tag_o       = tq_spilled ? look_tag_i : tag_beat[128*tq_tag[1:0] +: 128];

  assign look_o      = hq_valid && hq_spilled && !looked_q && !look_due_q;
  assign look_page_o = hq_index;
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      looked_q   <= 1'b0;
      look_due_q <= 1'b0;
    end else if (flush_i) begin
      looked_q   <= 1'b0;
      look_due_q <= 1'b0;
    end else begin
      if (look_o) looked_q <= 1'b1;
      if (hq_spilled && hdr_valid_o && hdr_ready_i) begin
        looked_q   <= 1'b0;
        look_due_q <= 1'b1;
      end else if (tq_spilled && hdr_tag_valid_o && hdr_tag_ready_i) begin
        look_due_q <= 1'b0;
      end
    end
  end

  // Big-endian numbers: the first IV byte is bits 7:0 of hdr_iv_o.
  always_comb begin
    logic [95:0] be;
    be = {version_i, hq_region, 16'd0, hq_index};
    for (int unsigned i = 0; i < 12; i++) hdr_iv_o[8*i +: 8] = be[8*(11-i) +: 8];
    if (hq_spilled) hdr_iv_o = look_iv_i;
  end
endmodule
