// The lock chain: fetch, decrypt and authenticate, release. Page requests go in, verified plaintext
// pages come out, in order, one 512-bit beat per cycle.
//
//   request -> lk_page_fetch -> lk_gcm -> lk_tile_ring -> page stream
//
// With Locked = 0 (a separate elaboration, never a setting of the operate build) lk_gcm and the tags
// are absent and every page counts as verified when its last beat is in the ring.
module lk_lock_chain #(
  parameter bit Locked = 1'b1
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  // key, sideloaded
  input  logic         key_valid_i,
  input  logic [127:0] key_i,
  input  logic         wipe_i,
  output logic         wipe_busy_o,
  output logic         key_ready_o,    // round keys and hash powers stand
  // run control
  input  logic         flush_i,        // level: drop everything under way
  input  logic         forget_i,       // pulse before a run: keep no tags of the one before
  output logic         idle_o,         // no burst is under way
  input  logic [63:0]  pages_addr_i,
  input  logic [63:0]  tags_addr_i,
  input  logic [31:0]  version_i,
  input  logic [31:0]  num_pages_i,
  input  logic         req_valid_i,
  output logic         req_ready_o,
  input  logic [31:0]  req_page_i,
  input  logic [15:0]  req_region_i,
  input  logic [31:0]  req_index_i,
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
  // verified pages
  output logic         pg_valid_o,
  input  logic         pg_ready_i,
  output logic [511:0] pg_data_o,
  output logic         pg_first_o,
  output logic         pg_last_o,
  // verdicts
  output logic         fail_o,         // sticky until the flush: a page failed authentication
  output logic [31:0]  fail_page_o,    // its global page number
  output logic         bus_error_o,    // pulse
  output logic         empty_o,        // every page that was asked for was verified and read
  output logic         decrypting_o,   // the next page has arrived and is not yet verified
  output logic         beat_o
);
  logic         hdr_valid, hdr_ready, data_valid, data_ready, data_last, data_last_unused;
  logic [95:0]  hdr_iv;
  logic [127:0] hdr_tag;
  logic [511:0] data;
  logic         slot_free, slot_take, fetch_req_ready;
  logic         wr_valid, wr_last, verdict_valid, verdict_ok, verdict_bad;
  logic [511:0] wr_data;
  logic         ring_fail;
  logic [31:0]  ring_fail_ordinal;
  logic         meta_ready;

  assign req_ready_o = fetch_req_ready;
  assign slot_take   = req_valid_i && req_ready_o;

  lk_page_fetch #(.WithTags(Locked)) u_fetch (
    .clk_i, .rst_ni, .flush_i, .forget_i, .idle_o, .pages_addr_i, .tags_addr_i, .version_i,
    .num_pages_i,
    .req_valid_i(req_valid_i && slot_free && meta_ready), .req_ready_o(fetch_req_ready),
    .req_page_i, .req_region_i, .req_index_i,
    .m_arvalid_o, .m_arready_i, .m_araddr_o, .m_arlen_o,
    .m_rvalid_i, .m_rready_o, .m_rdata_i, .m_rresp_i, .m_rlast_i,
    .hdr_valid_o(hdr_valid), .hdr_ready_i(hdr_ready), .hdr_iv_o(hdr_iv), .hdr_tag_o(hdr_tag),
    .data_valid_o(data_valid), .data_ready_i(data_ready), .data_o(data), .data_last_o(data_last),
    .bus_error_o, .beat_o
  );

  if (Locked) begin : gen_locked
    logic key_valid_q, reload_q, pt_last;
    // The engine is cleared by a wipe; after a flush that left the key valid it takes the key again.
    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) begin
        key_valid_q <= 1'b0;
        reload_q    <= 1'b0;
      end else begin
        key_valid_q <= key_valid_i && !wipe_i && !flush_i;
        reload_q    <= key_valid_i && !wipe_i && !flush_i && !key_valid_q;
      end
    end

    // SEC_CM: KEY.SIDELOAD
    lk_gcm #(.BeatsPerPage(lk_pkg::PageBeats)) u_gcm (
      .clk_i, .rst_ni,
      .key_valid_i(key_valid_q), .key_i, .key_load_i(reload_q), .wipe_i(wipe_i || flush_i),
      .key_ready_o,
      .hdr_valid_i(hdr_valid), .hdr_ready_o(hdr_ready), .hdr_iv_i(hdr_iv), .hdr_tag_i(hdr_tag),
      .ct_valid_i(data_valid), .ct_ready_o(data_ready), .ct_data_i(data),
      .pt_valid_o(wr_valid), .pt_data_o(wr_data), .pt_last_o(pt_last),
      .verdict_valid_o(verdict_valid), .verdict_ok_o(verdict_ok), .verdict_bad_o(verdict_bad)
    );
    assign wr_last = pt_last;
    assign data_last_unused = data_last;
  end else begin : gen_unlocked
    logic verdict_q;
    logic unused_key;
    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) verdict_q <= 1'b0;
      else         verdict_q <= data_valid && data_last;
    end
    assign hdr_ready        = 1'b1;
    assign data_ready       = 1'b1;
    assign wr_valid         = data_valid;
    assign wr_data          = data;
    assign wr_last          = data_last;
    assign verdict_valid    = verdict_q;
    assign verdict_ok       = 1'b1;
    assign verdict_bad      = 1'b0;
    assign key_ready_o      = 1'b1;
    assign data_last_unused = 1'b0;
    assign unused_key       = ^{key_valid_i, key_i, hdr_valid, hdr_iv, hdr_tag};
  end

  // SEC_CM: PAGE.VERIFY_BEFORE_USE
  lk_tile_ring #(.NumSlots(lk_pkg::RingSlots), .BeatsPerPage(lk_pkg::PageBeats)) u_ring (
    .clk_i, .rst_ni, .clear_i(flush_i), .wipe_i, .wipe_busy_o,
    .slot_free_o(slot_free), .slot_take_i(slot_take),
    .wr_valid_i(wr_valid), .wr_data_i(wr_data), .wr_last_i(wr_last),
    .verdict_valid_i(verdict_valid), .verdict_ok_i(verdict_ok), .verdict_bad_i(verdict_bad),
    .fail_o(ring_fail), .fail_page_o(ring_fail_ordinal),
    .rd_valid_o(pg_valid_o), .rd_ready_i(pg_ready_i), .rd_data_o(pg_data_o),
    .rd_first_o(pg_first_o), .rd_last_o(pg_last_o)
  );

  // The global page number of each page under way, in order, so that a failure can name it.
  logic        meta_valid;
  logic [31:0] meta_page;
  logic [4:0]  unused_meta_level;
  lk_fifo #(.Width(32), .Depth(16)) u_meta (
    .clk_i, .rst_ni, .clear_i(flush_i),
    .valid_i(slot_take), .ready_o(meta_ready), .data_i(req_page_i),
    .valid_o(meta_valid), .ready_i(verdict_valid), .data_o(meta_page), .level_o(unused_meta_level)
  );

  // Pages asked for, arrived, verified and read since the last flush.
  logic [4:0] pending_q;      // asked for and not yet read to the end
  logic [4:0] unverified_q;   // arrived whole and not yet judged
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      pending_q    <= '0;
      unverified_q <= '0;
      fail_o       <= 1'b0;
      fail_page_o  <= '0;
    end else if (flush_i) begin
      pending_q    <= '0;
      unverified_q <= '0;
      fail_o       <= 1'b0;
    end else begin
      pending_q    <= pending_q + 5'(slot_take) - 5'(pg_valid_o && pg_ready_i && pg_last_o);
      unverified_q <= unverified_q + 5'(data_valid && data_ready && data_last)
                      - 5'(verdict_valid);
      // The ring also fails when its own counts disagree; then too nothing is readable any more.
      if (((verdict_valid && (!verdict_ok || verdict_bad)) || ring_fail) && !fail_o) begin
        fail_o      <= 1'b1;
        fail_page_o <= meta_page;
      end
    end
  end
  assign empty_o      = pending_q == '0;
  assign decrypting_o = Locked && unverified_q != '0;

  logic unused;
  assign unused = ^{ring_fail_ordinal, meta_valid, data_last_unused};
endmodule
