// The lock chain: fetch, decrypt and authenticate, release. Page requests go in, verified plaintext
// pages come out, in order, one 512-bit beat per cycle.
//
//   request -> lk_page_fetch -> lk_gcm -> lk_tile_ring -> page stream
//
// The same cipher seals what is spilled and unseals what comes back, under the key of the run:
//
//   words -> lk_spill -> lk_gcm -> lk_spill -> memory        (Seal)
//   request -> lk_page_fetch -> lk_gcm -> lk_tile_ring       (Unseal)
//
// Between these and the pages of the package the cipher changes its key, about 80 cycles, when no
// page is on its way through it. seal_i (level) asks for Seal: what is verified already stays in
// the ring, and nothing more is fetched until the last burst was answered. A request for a page of
// the spill area begins Unseal as soon as unseal_i (level) allows it and every page before it was
// read.
//
// With Locked = 0 (a separate elaboration, never a setting of the operate build) lk_gcm and the
// tags are absent and every page counts as verified when its last beat is in the ring.
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
  input  logic         run_key_valid_i,
  input  logic [127:0] run_key_i,      // of this run, for the spill area
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
  input  logic         req_spilled_i,  // of the spill area
  // spill
  input  logic         seal_i,
  input  logic         unseal_i,
  input  logic [63:0]  spill_addr_i,
  input  logic [31:0]  spill_pages_i,  // pages of the area
  input  logic [31:0]  spill_page_i,   // where a Spill begins
  output logic         spill_bad_o,    // level: a page beyond the area was to be written
  input  logic         sl_valid_i,
  output logic         sl_ready_o,
  input  logic [511:0] sl_data_i,
  input  logic         sl_last_i,
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
  input  logic [1:0]   m_bresp_i,
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
  output logic [31:0]  fail_page_o,    // its global page number, or its number in the spill area
  output logic         fail_spilled_o, // it is a page of the spill area
  output logic         bus_error_o,    // pulse
  output logic         settled_o,      // pages of the package are what the cipher works on
  output logic         empty_o,        // every page that was asked for was verified and read, and
                                       // every burst of a Spill answered
  output logic         decrypting_o,   // the next page has arrived and is not yet verified
  output logic         beat_o
);
  logic         hdr_valid, hdr_ready, data_valid, data_ready, data_last, data_last_unused;
  logic [95:0]  hdr_iv;
  logic         hdr_tag_valid, hdr_tag_ready, cipher_tag_ready;
  logic [127:0] hdr_tag;
  logic [511:0] data;
  logic         slot_free, slot_take, fetch_req_ready;
  logic         wr_valid, wr_last, verdict_valid, verdict_ok, verdict_bad;
  logic [511:0] wr_data;
  logic         ring_fail;
  logic [31:0]  ring_fail_ordinal;
  logic         meta_ready;
  logic         fetch_idle, fetch_bus_error, spill_idle, spill_bus_error;
  logic [4:0]   pending_q, unverified_q, unwritten_q;

  // ---- What the cipher works on -----------------------------------------------------------------
  // SEC_CM: SPILL.FSM_SPARSE (Hamming distance 3; anything else traps and lets nothing through)
  typedef enum logic [5:0] {
    StPages    = 6'b000000,
    StRunLoad  = 6'b000111,  // the key of the run goes to the cipher
    StRunWait  = 6'b011001,
    StSeal     = 6'b011110,
    StUnseal   = 6'b101010,
    StBackLoad = 6'b101101,  // the model key goes back
    StBackWait = 6'b110011,
    StTrap     = 6'b110100
  } state_e;
  (* fsm_encoding = "none" *) state_e state_q;
  logic to_seal_q;   // why the key of the run was loaded
  logic run_key_q;   // the cipher holds it
  logic seal_seen_q;
  logic quiet, cipher_ready, req_open;
  (* keep = "true" *) logic sealing;
  (* keep = "true" *) logic seal_open;

  // Nothing is on its way through the cipher.
  assign quiet    = fetch_idle && unverified_q == '0 && unwritten_q == '0;
  assign req_open = req_spilled_i ? state_q == StUnseal : state_q == StPages && !seal_i;
  // SEC_CM: SPILL.SEAL_DUP: the state and the key that was loaded must agree before the memory gets
  // what leaves the cipher, and say so twice: sealing lets beats pass, seal_open their content.
  assign sealing   = state_q == StSeal && run_key_q && to_seal_q;
  assign seal_open = state_q == StSeal && run_key_q && to_seal_q;

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q     <= StPages;
      to_seal_q   <= 1'b0;
      run_key_q   <= 1'b0;
      seal_seen_q <= 1'b0;
    end else if (state_q != StTrap && (flush_i || wipe_i)) begin
      state_q     <= StPages;
      to_seal_q   <= 1'b0;
      run_key_q   <= 1'b0;
      seal_seen_q <= 1'b0;
    end else begin
      seal_seen_q <= seal_i;
      unique case (state_q)
        StPages: begin
          if (seal_i && seal_seen_q && quiet) begin
            state_q   <= StRunLoad;
            to_seal_q <= 1'b1;
          end else if (unseal_i && req_valid_i && req_spilled_i && quiet && pending_q == '0) begin
            state_q   <= StRunLoad;
            to_seal_q <= 1'b0;
          end
        end
        StRunLoad: begin
          if (run_key_valid_i) begin
            state_q   <= StRunWait;
            run_key_q <= 1'b1;
          end
        end
        StRunWait: if (cipher_ready) state_q <= to_seal_q ? StSeal : StUnseal;
        StSeal:    if (!seal_i && spill_idle) state_q <= StBackLoad;
        StUnseal:  if (!unseal_i && pending_q == '0) state_q <= StBackLoad;
        StBackLoad: begin
          state_q   <= StBackWait;
          run_key_q <= 1'b0;
          to_seal_q <= 1'b0;
        end
        StBackWait: if (cipher_ready) state_q <= StPages;
        default:    state_q <= StTrap;
      endcase
    end
  end

  logic         look, sl_hdr_valid, sl_pt_valid, tag_valid;
  logic [31:0]  look_page;
  logic [95:0]  look_iv, sl_hdr_iv;
  logic [127:0] look_tag, tag;
  logic [511:0] sl_pt_data;
  logic         cipher_hdr_ready, cipher_ready_beat;
  logic         cipher_valid, cipher_last;
  logic [511:0] cipher_data, sealed;

  lk_spill #(.Locked(Locked)) u_spill (
    .clk_i, .rst_ni, .flush_i(flush_i || wipe_i), .active_i(sealing), .page_i(spill_page_i),
    .limit_i(spill_pages_i), .addr_i(spill_addr_i), .idle_o(spill_idle), .bad_o(spill_bad_o),
    .bus_error_o(spill_bus_error),
    .sl_valid_i, .sl_ready_o, .sl_data_i, .sl_last_i,
    .hdr_valid_o(sl_hdr_valid), .hdr_ready_i(cipher_hdr_ready && sealing), .hdr_iv_o(sl_hdr_iv),
    .pt_valid_o(sl_pt_valid), .pt_ready_i(cipher_ready_beat && sealing), .pt_data_o(sl_pt_data),
    .ct_valid_i(cipher_valid && sealing), .ct_data_i(sealed),
    .tag_valid_i(tag_valid && sealing), .tag_i(tag),
    .look_i(look), .look_page_i(look_page), .look_iv_o(look_iv), .look_tag_o(look_tag),
    .m_awvalid_o, .m_awready_i, .m_awaddr_o, .m_awlen_o, .m_wvalid_o, .m_wready_i, .m_wdata_o,
    .m_wstrb_o, .m_wlast_o, .m_bvalid_i, .m_bready_o, .m_bresp_i
  );

  assign sealed      = seal_open ? cipher_data : '0;
  assign req_ready_o = fetch_req_ready;
  assign slot_take   = req_valid_i && req_ready_o;
  assign idle_o      = fetch_idle && spill_idle;
  assign bus_error_o = fetch_bus_error || spill_bus_error;
  assign wr_valid    = cipher_valid && !sealing;
  assign wr_data     = cipher_data;
  assign wr_last     = cipher_last;
  assign hdr_ready   = cipher_hdr_ready && !sealing;
  assign hdr_tag_ready = cipher_tag_ready && !sealing;
  assign data_ready  = cipher_ready_beat && !sealing;

  lk_page_fetch #(.WithTags(Locked)) u_fetch (
    .clk_i, .rst_ni, .flush_i, .forget_i, .idle_o(fetch_idle), .pages_addr_i, .tags_addr_i,
    .spill_addr_i, .version_i, .num_pages_i,
    .req_valid_i(req_valid_i && req_open && slot_free && meta_ready), .req_ready_o(fetch_req_ready),
    .req_page_i, .req_region_i, .req_index_i, .req_spilled_i,
    .look_o(look), .look_page_o(look_page), .look_iv_i(look_iv), .look_tag_i(look_tag),
    .m_arvalid_o, .m_arready_i, .m_araddr_o, .m_arlen_o,
    .m_rvalid_i, .m_rready_o, .m_rdata_i, .m_rresp_i, .m_rlast_i,
    .hdr_valid_o(hdr_valid), .hdr_ready_i(hdr_ready), .hdr_iv_o(hdr_iv),
    .hdr_tag_valid_o(hdr_tag_valid), .hdr_tag_ready_i(hdr_tag_ready), .hdr_tag_o(hdr_tag),
    .data_valid_o(data_valid), .data_ready_i(data_ready), .data_o(data), .data_last_o(data_last),
    .bus_error_o(fetch_bus_error), .beat_o
  );

  if (Locked) begin : gen_locked
    logic key_valid_q, reload_q, key_load, raw_verdict_valid;
    // The engine is cleared by a wipe; after a flush that left the key valid it takes the key
    // again.
    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) begin
        key_valid_q <= 1'b0;
        reload_q    <= 1'b0;
      end else begin
        key_valid_q <= key_valid_i && !wipe_i && !flush_i;
        reload_q    <= key_valid_i && !wipe_i && !flush_i && !key_valid_q;
      end
    end

    assign key_load = reload_q || (state_q == StRunLoad && run_key_valid_i) ||
                      state_q == StBackLoad;

    // SEC_CM: KEY.SIDELOAD
    lk_gcm #(.BeatsPerPage(lk_pkg::PageBeats)) u_gcm (
      .clk_i, .rst_ni, .seal_i(to_seal_q),
      .key_valid_i(key_valid_q), .key_i(state_q == StRunLoad ? run_key_i : key_i),
      .key_load_i(key_load), .wipe_i(wipe_i || flush_i),
      .key_ready_o(cipher_ready),
      .hdr_valid_i(sealing ? sl_hdr_valid : hdr_valid), .hdr_ready_o(cipher_hdr_ready),
      .hdr_iv_i(sealing ? sl_hdr_iv : hdr_iv), .hdr_tag_valid_i(sealing || hdr_tag_valid),
      .hdr_tag_ready_o(cipher_tag_ready), .hdr_tag_i(sealing ? '0 : hdr_tag),
      .ct_valid_i(sealing ? sl_pt_valid : data_valid), .ct_ready_o(cipher_ready_beat),
      .ct_data_i(sealing ? sl_pt_data : data),
      .pt_valid_o(cipher_valid), .pt_data_o(cipher_data), .pt_last_o(cipher_last),
      .verdict_valid_o(raw_verdict_valid), .verdict_ok_o(verdict_ok), .verdict_bad_o(verdict_bad),
      .tag_valid_o(tag_valid), .tag_o(tag)
    );
    assign verdict_valid    = raw_verdict_valid && !to_seal_q;
    assign key_ready_o      = cipher_ready;
    assign data_last_unused = data_last;
  end else begin : gen_unlocked
    logic verdict_q;
    logic unused_key;
    always_ff @(posedge clk_i or negedge rst_ni) begin
      if (!rst_ni) verdict_q <= 1'b0;
      else         verdict_q <= data_valid && data_last;
    end
    assign cipher_hdr_ready  = 1'b1;
    assign cipher_tag_ready  = 1'b1;
    assign cipher_ready_beat = 1'b1;
    assign cipher_ready      = 1'b1;
    assign cipher_valid      = sealing ? sl_pt_valid : data_valid;
    assign cipher_data       = sealing ? sl_pt_data : data;
    assign cipher_last       = data_last;
    assign tag_valid         = 1'b0;
    assign tag               = '0;
    assign verdict_valid     = verdict_q;
    assign verdict_ok       = 1'b1;
    assign verdict_bad      = 1'b0;
    assign key_ready_o      = 1'b1;
    assign data_last_unused = 1'b0;
    assign unused_key       = ^{key_valid_i, key_i, run_key_i, hdr_valid, hdr_iv, hdr_tag,
                                hdr_ready, hdr_tag_valid, sl_hdr_valid, sl_hdr_iv};
  end

  // The ring takes a verdict before the last plaintext: the page must have come whole all the same.
  logic due, page_ok, page_bad;
  assign due      = unverified_q != '0;
  assign page_ok  = verdict_ok && due;
  assign page_bad = verdict_bad || !due;

  if (Locked && lk_pkg::PageBeats < lk_gcm_pkg::PtLatency - lk_gcm_pkg::VerdictLatency + 2)
  begin : gen_bad_page
    $fatal(1, "%m: a verdict would come before the first plaintext of its page");
  end

  // SEC_CM: PAGE.VERIFY_BEFORE_USE
  lk_tile_ring #(.NumSlots(lk_pkg::RingSlots), .BeatsPerPage(lk_pkg::PageBeats)) u_ring (
    .clk_i, .rst_ni, .clear_i(flush_i), .wipe_i, .wipe_busy_o,
    .slot_free_o(slot_free), .slot_take_i(slot_take),
    .wr_valid_i(wr_valid), .wr_data_i(wr_data), .wr_last_i(wr_last),
    .verdict_valid_i(verdict_valid), .verdict_ok_i(page_ok), .verdict_bad_i(page_bad),
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
  // pending_q: asked for and not yet read to the end. unverified_q: arrived whole, not yet judged.
  // unwritten_q: arrived whole, its end not yet in the ring; a page's verdict comes before that.
  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      pending_q    <= '0;
      unverified_q <= '0;
      unwritten_q  <= '0;
      fail_o       <= 1'b0;
      fail_page_o  <= '0;
      fail_spilled_o <= 1'b0;
    end else if (flush_i) begin
      pending_q    <= '0;
      unverified_q <= '0;
      unwritten_q  <= '0;
      fail_o       <= 1'b0;
    end else begin
      pending_q    <= pending_q + 5'(slot_take) - 5'(pg_valid_o && pg_ready_i && pg_last_o);
      unverified_q <= unverified_q + 5'(data_valid && data_ready && data_last)
                      - 5'(verdict_valid);
      unwritten_q  <= unwritten_q + 5'(data_valid && data_ready && data_last)
                      - 5'(wr_valid && wr_last);
      // The ring also fails when its own counts disagree; then too nothing is readable any more.
      if (((verdict_valid && (!page_ok || page_bad)) || ring_fail || state_q == StTrap) &&
          !fail_o) begin
        fail_o      <= 1'b1;
        fail_page_o <= meta_page;
        fail_spilled_o <= state_q == StUnseal;
      end
    end
  end
  assign settled_o    = state_q == StPages;
  assign empty_o      = pending_q == '0 && state_q == StPages && !seal_i && !unseal_i;
  assign decrypting_o = Locked && unverified_q != '0;

  logic unused;
  assign unused = ^{ring_fail_ordinal, meta_valid, data_last_unused};
endmodule
