// Latchkey's compute kernel: wiring only.
//
//   s_axi_control -> registers -> key block (PUF, ladder) --key, sideload--> lock chain
//   m_axi_gmem (sealed pages, tags) -> lock chain -> descriptors (sequencer), weights (engine)
//   s_axis_in (images) -> engine (scratchpad, array, post unit) -> m_axis_out (results)
//   engine (spilled activations) -> lock chain, sealed -> m_axi_gmem -> lock chain -> engine
//
// Locked = 0 is the separate elaboration that the lock's price is measured against: no key block,
// no cipher, pages in clear. It is not a setting of the operate build.
module latchkey_core #(
  parameter bit          Locked    = 1'b1,
  parameter int unsigned ArrayN    = 16,
  parameter int unsigned SpadWords = ArrayN == 64 ? lk_pkg::SpadWordsN64 : lk_pkg::SpadWords,
  parameter logic [31:0] BuildHash = 32'd0
) (
  input  logic         ap_clk,
  input  logic         ap_rst_n,
  output logic         interrupt,

  input  logic [15:0]  s_axi_control_awaddr,
  input  logic         s_axi_control_awvalid,
  output logic         s_axi_control_awready,
  input  logic [31:0]  s_axi_control_wdata,
  input  logic [3:0]   s_axi_control_wstrb,
  input  logic         s_axi_control_wvalid,
  output logic         s_axi_control_wready,
  output logic [1:0]   s_axi_control_bresp,
  output logic         s_axi_control_bvalid,
  input  logic         s_axi_control_bready,
  input  logic [15:0]  s_axi_control_araddr,
  input  logic         s_axi_control_arvalid,
  output logic         s_axi_control_arready,
  output logic [31:0]  s_axi_control_rdata,
  output logic [1:0]   s_axi_control_rresp,
  output logic         s_axi_control_rvalid,
  input  logic         s_axi_control_rready,

  output logic [63:0]  m_axi_gmem_araddr,
  output logic [7:0]   m_axi_gmem_arlen,
  output logic [2:0]   m_axi_gmem_arsize,
  output logic [1:0]   m_axi_gmem_arburst,
  output logic         m_axi_gmem_arvalid,
  input  logic         m_axi_gmem_arready,
  input  logic [511:0] m_axi_gmem_rdata,
  input  logic [1:0]   m_axi_gmem_rresp,
  input  logic         m_axi_gmem_rlast,
  input  logic         m_axi_gmem_rvalid,
  output logic         m_axi_gmem_rready,

  output logic [63:0]  m_axi_gmem_awaddr,
  output logic [7:0]   m_axi_gmem_awlen,
  output logic [2:0]   m_axi_gmem_awsize,
  output logic [1:0]   m_axi_gmem_awburst,
  output logic         m_axi_gmem_awvalid,
  input  logic         m_axi_gmem_awready,
  output logic [511:0] m_axi_gmem_wdata,
  output logic [63:0]  m_axi_gmem_wstrb,
  output logic         m_axi_gmem_wlast,
  output logic         m_axi_gmem_wvalid,
  input  logic         m_axi_gmem_wready,
  input  logic [1:0]   m_axi_gmem_bresp,
  input  logic         m_axi_gmem_bvalid,
  output logic         m_axi_gmem_bready,

  input  logic [511:0] s_axis_in_tdata,
  input  logic [63:0]  s_axis_in_tkeep,
  input  logic         s_axis_in_tlast,
  input  logic         s_axis_in_tvalid,
  output logic         s_axis_in_tready,

  output logic [511:0] m_axis_out_tdata,
  output logic [63:0]  m_axis_out_tkeep,
  output logic         m_axis_out_tlast,
  output logic         m_axis_out_tvalid,
  input  logic         m_axis_out_tready
);
  import lk_pkg::*;

  if (ArrayN != 16 && ArrayN != 32 && ArrayN != 64) begin : gen_bad_array
    $fatal(1, "%m: ArrayN must be 16, 32 or 64, got %0d", ArrayN);
  end
  if (SpadWords < 1024 || (SpadWords & (SpadWords - 1)) != 0) begin : gen_bad_scratchpad
    $fatal(1, "%m: SpadWords must be a power of two and at least 1024, got %0d", SpadWords);
  end

  localparam logic [31:0] ConfigId = config_id(ArrayN, SpadWords);

  assign m_axi_gmem_arsize  = 3'd6;   // 64 bytes
  assign m_axi_gmem_arburst = 2'b01;  // INCR
  assign m_axi_gmem_awsize  = 3'd6;
  assign m_axi_gmem_awburst = 2'b01;

  // --- Registers ---------------------------------------------------------------------------------
  logic        ap_start, ap_done, ap_continue;
  logic        reg_we, reg_re;
  logic [15:0] reg_waddr, reg_raddr;
  logic [31:0] reg_wdata, reg_rdata;
  logic [3:0]  reg_wstrb;
  logic        running;

  lk_axil_ctrl u_axil (
    .clk_i(ap_clk), .rst_ni(ap_rst_n),
    .s_axi_awaddr_i(s_axi_control_awaddr), .s_axi_awvalid_i(s_axi_control_awvalid),
    .s_axi_awready_o(s_axi_control_awready), .s_axi_wdata_i(s_axi_control_wdata),
    .s_axi_wstrb_i(s_axi_control_wstrb), .s_axi_wvalid_i(s_axi_control_wvalid),
    .s_axi_wready_o(s_axi_control_wready), .s_axi_bresp_o(s_axi_control_bresp),
    .s_axi_bvalid_o(s_axi_control_bvalid), .s_axi_bready_i(s_axi_control_bready),
    .s_axi_araddr_i(s_axi_control_araddr), .s_axi_arvalid_i(s_axi_control_arvalid),
    .s_axi_arready_o(s_axi_control_arready), .s_axi_rdata_o(s_axi_control_rdata),
    .s_axi_rresp_o(s_axi_control_rresp), .s_axi_rvalid_o(s_axi_control_rvalid),
    .s_axi_rready_i(s_axi_control_rready),
    .ap_start_o(ap_start), .ap_done_i(ap_done), .ap_ready_i(ap_done), .ap_idle_i(!running),
    .ap_continue_o(ap_continue), .interrupt_o(interrupt),
    .reg_we_o(reg_we), .reg_addr_o(reg_waddr), .reg_wdata_o(reg_wdata), .reg_wstrb_o(reg_wstrb),
    .reg_re_o(reg_re), .reg_raddr_o(reg_raddr), .reg_rdata_i(reg_rdata)
  );

  logic [63:0] pages_addr, tags_addr, spill_addr;
  logic [15:0] batch;
  lk_run_regs u_run_regs (
    .clk_i(ap_clk), .rst_ni(ap_rst_n), .running_i(running),
    .we_i(reg_we), .addr_i(reg_waddr), .wdata_i(reg_wdata),
    .pages_addr_o(pages_addr), .tags_addr_o(tags_addr), .spill_addr_o(spill_addr),
    .batch_o(batch)
  );

  // --- Keys --------------------------------------------------------------------------------------
  logic         key_valid, manifest_valid, tamper, wipe, wipe_busy;
  logic [127:0] key;
  manifest_t    manifest;
  logic [3:0]   key_state;
  logic [7:0]   key_err;
  logic [31:0]  start_cycles, setup_cycles, min_version;
  logic [15:0]  unstable, lc_state;
  logic [255:0] attest;
  logic [127:0] nonce;
  logic         run_key_draw, run_key_clear, run_key_valid, run_key_fail;
  logic [127:0] run_key;
  logic [31:0]  runs_left, time_left, floor_version, floor_epoch, build_hash, build_flags;

  if (Locked) begin : gen_key
    logic key_busy, running_q;
    always_ff @(posedge ap_clk or negedge ap_rst_n) begin
      if (!ap_rst_n) running_q <= 1'b0;
      else running_q <= running;
    end
    lk_key_top #(.ConfigId(ConfigId)) u_key (
      .clk_i(ap_clk), .rst_ni(ap_rst_n),
      .cmd_valid_i(reg_we && reg_waddr == RegCmd), .cmd_i(reg_wdata[3:0]),
      .busy_o(key_busy), .state_o(key_state), .err_o(key_err),
      .helper_we_i(reg_we && reg_waddr == RegHelperIn),
      .manifest_we_i(reg_we && reg_waddr == RegManifestIn),
      .blob_we_i(reg_we && reg_waddr == RegBlobIn), .wdata_i(reg_wdata),
      .fill_clear_i(reg_we && reg_waddr == RegFillClear),
      .msg_we_i(reg_we && reg_waddr == RegMsgIn),
      .build_hash_i(build_hash), .build_flags_i(build_flags), .attest_o(attest), .nonce_o(nonce),
      .runs_left_o(runs_left), .time_left_o(time_left), .floor_version_o(floor_version),
      .floor_epoch_o(floor_epoch), .run_start_i(running && !running_q),
      .run_key_draw_i(run_key_draw), .run_key_clear_i(run_key_clear),
      .run_key_valid_o(run_key_valid), .run_key_o(run_key), .run_key_fail_o(run_key_fail),
      .tamper_i(tamper), .wipe_o(wipe), .wipe_busy_i(wipe_busy),
      .key_valid_o(key_valid), .key_o(key),
      .manifest_valid_o(manifest_valid), .manifest_o(manifest),
      .start_cycles_o(start_cycles), .unstable_o(unstable), .min_version_o(min_version),
      .lc_state_o(lc_state)
    );

    // What loading a model costs: start, unwrap and the wipe between, host time not counted.
    always_ff @(posedge ap_clk or negedge ap_rst_n) begin
      if (!ap_rst_n) setup_cycles <= '0;
      else if (reg_we && reg_waddr == RegCmd && reg_wdata[3:0] == CmdStart) setup_cycles <= '0;
      else if (key_busy || wipe_busy) setup_cycles <= setup_cycles + 1'b1;
    end
  end else begin : gen_open
    lk_open_manifest u_manifest (
      .clk_i(ap_clk), .rst_ni(ap_rst_n),
      .cmd_valid_i(reg_we && reg_waddr == RegCmd), .cmd_i(reg_wdata[3:0]),
      .manifest_we_i(reg_we && reg_waddr == RegManifestIn), .wdata_i(reg_wdata),
      .fill_clear_i(reg_we && reg_waddr == RegFillClear),
      .wipe_o(wipe), .wipe_busy_i(wipe_busy),
      .config_id_i(ConfigId), .state_o(key_state), .err_o(key_err),
      .manifest_valid_o(manifest_valid), .manifest_o(manifest)
    );
    logic unused_tamper;
    assign unused_tamper = ^{tamper, run_key_draw, run_key_clear};
    assign key_valid     = manifest_valid;
    assign key           = '0;
    assign run_key_valid = 1'b1;
    assign run_key       = '0;
    assign run_key_fail  = 1'b0;
    assign start_cycles  = '0;
    assign setup_cycles  = '0;
    assign min_version   = '0;
    assign unstable      = '0;
    assign lc_state      = '0;
    assign attest        = '0;
    assign nonce         = '0;
    assign runs_left     = '0;
    assign time_left     = '0;
    assign floor_version = '0;
    assign floor_epoch   = '0;
  end

  // --- Lock chain --------------------------------------------------------------------------------
  logic         walker_boot;  // a run begins
  logic         flush, chain_idle, chain_ready, chain_fail, chain_empty, decrypting, bus_error;
  logic         beat, chain_wipe_busy, engine_wipe_busy;
  logic         req_valid, req_ready, req_spilled, req_turn;
  logic         chain_settled, chain_fail_spilled, spill_bad, seal, unseal, seal_valid, seal_ready;
  logic         eng_out_last;
  logic [511:0] eng_out_data;
  desc_t        eng_desc;
  logic [31:0]  req_page, req_index, fail_page;
  logic [15:0]  req_region;
  logic         pg_valid, pg_ready, pg_first, pg_last;
  logic [511:0] pg_data;

  assign wipe_busy = chain_wipe_busy || engine_wipe_busy;

  lk_lock_chain #(.Locked(Locked)) u_chain (
    .clk_i(ap_clk), .rst_ni(ap_rst_n),
    .key_valid_i(key_valid), .key_i(key), .wipe_i(wipe), .wipe_busy_o(chain_wipe_busy),
    .key_ready_o(chain_ready), .run_key_valid_i(run_key_valid), .run_key_i(run_key),
    .flush_i(flush), .forget_i(walker_boot), .idle_o(chain_idle),
    .pages_addr_i(pages_addr), .tags_addr_i(tags_addr),
    .version_i(manifest.version), .num_pages_i(manifest.num_pages),
    .req_valid_i(req_valid && req_turn), .req_ready_o(req_ready), .req_page_i(req_page),
    .req_region_i(req_region), .req_index_i(req_index), .req_spilled_i(req_spilled),
    .seal_i(seal), .unseal_i(unseal), .spill_addr_i(spill_addr),
    .spill_pages_i(manifest.spill_pages), .spill_page_i(eng_desc.spill_page),
    .spill_bad_o(spill_bad), .sl_valid_i(seal_valid), .sl_ready_o(seal_ready),
    .sl_data_i(eng_out_data), .sl_last_i(eng_out_last),
    .m_awvalid_o(m_axi_gmem_awvalid), .m_awready_i(m_axi_gmem_awready),
    .m_awaddr_o(m_axi_gmem_awaddr), .m_awlen_o(m_axi_gmem_awlen),
    .m_wvalid_o(m_axi_gmem_wvalid), .m_wready_i(m_axi_gmem_wready),
    .m_wdata_o(m_axi_gmem_wdata), .m_wstrb_o(m_axi_gmem_wstrb), .m_wlast_o(m_axi_gmem_wlast),
    .m_bvalid_i(m_axi_gmem_bvalid), .m_bready_o(m_axi_gmem_bready), .m_bresp_i(m_axi_gmem_bresp),
    .m_arvalid_o(m_axi_gmem_arvalid), .m_arready_i(m_axi_gmem_arready),
    .m_araddr_o(m_axi_gmem_araddr), .m_arlen_o(m_axi_gmem_arlen),
    .m_rvalid_i(m_axi_gmem_rvalid), .m_rready_o(m_axi_gmem_rready),
    .m_rdata_i(m_axi_gmem_rdata), .m_rresp_i(m_axi_gmem_rresp), .m_rlast_i(m_axi_gmem_rlast),
    .pg_valid_o(pg_valid), .pg_ready_i(pg_ready), .pg_data_o(pg_data), .pg_first_o(pg_first),
    .pg_last_o(pg_last),
    .fail_o(chain_fail), .fail_page_o(fail_page), .fail_spilled_o(chain_fail_spilled),
    .bus_error_o(bus_error), .settled_o(chain_settled), .empty_o(chain_empty),
    .decrypting_o(decrypting), .beat_o(beat)
  );

  // --- Control -----------------------------------------------------------------------------------
  logic         run_done, walker_clear, walker_run, walker_finished, walker_bad;
  logic [7:0]   run_status;
  logic         desc_we, pg_take;
  logic [$clog2(2*MaxDescs)-1:0]    desc_waddr;
  logic [1:0]   desc_req, desc_valid;
  logic [1:0][$clog2(MaxDescs)-1:0] desc_idx;
  desc_t        desc;
  logic         eng_valid, eng_ready, eng_abort, eng_done, eng_bad_desc, eng_bad_input, eng_active;
  logic         in_drain, null_valid, release_out;
  logic         eng_pg_ready, eng_in_ready, eng_out_valid, eng_out_held, eng_out_ready, out_ready;
  logic         out_keep, out_beat, out_open;
  logic [511:0] released;  // a word of the results

  lk_desc_ram u_descs (
    .clk_i(ap_clk), .rst_ni(ap_rst_n), .we_i(desc_we), .waddr_i(desc_waddr), .wdata_i(pg_data),
    .req_i(desc_req), .idx_i(desc_idx), .valid_o(desc_valid), .desc_o(desc)
  );

  lk_walker u_walker (
    .clk_i(ap_clk), .rst_ni(ap_rst_n), .clear_i(walker_clear), .boot_i(walker_boot),
    .run_i(walker_run), .desc_pages_i(manifest.desc_pages), .num_descs_i(manifest.num_descs),
    .num_pages_i(manifest.num_pages), .spill_pages_i(manifest.spill_pages), .batch_i(batch),
    .finished_o(walker_finished), .bad_o(walker_bad),
    .desc_req_o(desc_req[1]), .desc_idx_o(desc_idx[1]),
    .desc_valid_i(desc_valid[1]), .desc_i(desc),
    .req_valid_o(req_valid), .req_ready_i(req_ready), .req_page_o(req_page),
    .req_region_o(req_region), .req_index_o(req_index), .req_spilled_o(req_spilled)
  );

  lk_sequencer u_sequencer (
    .clk_i(ap_clk), .rst_ni(ap_rst_n), .start_i(ap_start), .done_o(run_done), .running_o(running),
    .batch_i(batch), .status_o(run_status),
    .key_valid_i(key_valid), .chain_ready_i(chain_ready), .manifest_valid_i(manifest_valid),
    .manifest_i(manifest), .wipe_i(wipe), .wipe_busy_i(wipe_busy), .tamper_o(tamper),
    .flush_o(flush), .chain_idle_i(chain_idle), .chain_settled_i(chain_settled),
    .chain_empty_i(chain_empty), .chain_fail_i(chain_fail),
    .chain_fail_spilled_i(chain_fail_spilled), .spill_bad_i(spill_bad),
    .run_key_fail_i(run_key_fail), .seal_o(seal), .unseal_o(unseal), .bus_error_i(bus_error),
    .walker_clear_o(walker_clear), .walker_boot_o(walker_boot), .walker_run_o(walker_run),
    .walker_finished_i(walker_finished), .walker_bad_i(walker_bad),
    .desc_we_o(desc_we), .desc_waddr_o(desc_waddr), .desc_req_o(desc_req[0]),
    .desc_idx_o(desc_idx[0]), .desc_valid_i(desc_valid[0]), .desc_i(desc),
    .pg_valid_i(pg_valid), .pg_last_i(pg_last), .pg_take_o(pg_take),
    .eng_valid_o(eng_valid), .eng_ready_i(eng_ready), .eng_desc_o(eng_desc),
    .eng_abort_o(eng_abort), .eng_done_i(eng_done), .eng_bad_desc_i(eng_bad_desc),
    .eng_bad_input_i(eng_bad_input), .eng_active_o(eng_active),
    .release_o(release_out),
    .in_last_taken_i(s_axis_in_tvalid && s_axis_in_tready && s_axis_in_tlast),
    .in_drain_o(in_drain), .null_valid_o(null_valid), .null_ready_i(out_ready)
  );
  assign ap_done = run_done;

  // Pages of the spill area are fetched for the Load that runs, not for one that comes later: what
  // that one reads may not lie there yet.
  assign req_turn = !req_spilled || (unseal && desc_idx[1] == desc_idx[0]);

  // The key of a run that spills is drawn with its start and gone with its end.
  assign run_key_draw  = walker_boot && manifest.spill_pages != '0;
  assign run_key_clear = run_done || flush;

  // --- Engine ------------------------------------------------------------------------------------
  logic        ev_busy, ev_want_weights, ev_loading, ev_feed, ev_post;
  logic [13:0] macs;

  lk_engine #(.ArrayN(ArrayN), .SpadWords(SpadWords)) u_engine (
    .clk_i(ap_clk), .rst_ni(ap_rst_n), .wipe_i(wipe), .wipe_busy_o(engine_wipe_busy),
    .abort_i(eng_abort), .cmd_valid_i(eng_valid), .cmd_ready_o(eng_ready), .desc_i(eng_desc),
    .batch_i(batch), .done_o(eng_done), .bad_desc_o(eng_bad_desc), .bad_input_o(eng_bad_input),
    .pg_valid_i(pg_valid && eng_active), .pg_ready_o(eng_pg_ready), .pg_data_i(pg_data),
    .pg_first_i(pg_first), .pg_last_i(pg_last),
    .in_valid_i(s_axis_in_tvalid), .in_ready_o(eng_in_ready), .in_data_i(s_axis_in_tdata),
    .in_last_i(s_axis_in_tlast),
    .out_valid_o(eng_out_valid), .out_ready_i(eng_out_ready), .out_data_o(eng_out_data),
    .out_last_o(eng_out_last), .out_held_o(eng_out_held),
    .ev_busy_o(ev_busy), .ev_want_weights_o(ev_want_weights), .ev_loading_o(ev_loading),
    .ev_feed_o(ev_feed), .ev_post_o(ev_post), .macs_o(macs)
  );
  assign pg_ready = pg_take || (eng_active && eng_pg_ready);

  // --- Streams -----------------------------------------------------------------------------------
  logic unused_keep;
  assign unused_keep      = ^s_axis_in_tkeep;
  assign s_axis_in_tready = in_drain || (eng_in_ready && running && !eng_abort);
  // SEC_CM: RUN.NO_OUTPUT_ON_FAIL: on a failure only the null beat passes.
  // SEC_CM: RUN.OUTPUT_DUP: a beat carries a result if two wires say so; with one it is a null
  // beat.
  assign out_beat = eng_out_valid && release_out && eng_active && !eng_abort && !wipe;
  assign out_open = eng_out_held && release_out && eng_active && !eng_abort && !wipe;
  assign released = release_out ? eng_out_data : '0;
  // Words of a Spill go to the cipher and nowhere else.
  assign seal_valid    = eng_out_valid && eng_out_held && seal && eng_active && !eng_abort && !wipe;
  assign eng_out_ready = seal ? seal_ready : out_ready;
  // The slice keeps a beat that was offered until it is taken; what reaches it is a released
  // result.
  lk_skid #(.Width(514)) u_out (
    .clk_i(ap_clk), .rst_ni(ap_rst_n),
    .valid_i(null_valid || out_beat),
    .ready_o(out_ready),
    .data_i(null_valid || !out_open ? {1'b1, 1'b0, 512'd0} : {eng_out_last, 1'b1, released}),
    .valid_o(m_axis_out_tvalid), .ready_i(m_axis_out_tready),
    .data_o({m_axis_out_tlast, out_keep, m_axis_out_tdata})
  );
  assign m_axis_out_tkeep = {64{out_keep}};

  // --- Counters and register reads ---------------------------------------------------------------
  logic [31:0] counter_word;
  logic        count_clear;
  assign count_clear = !running && ap_start;

  lk_counters u_counters (
    .clk_i(ap_clk), .rst_ni(ap_rst_n), .clear_i(count_clear), .running_i(running),
    .active_i(eng_active), .op_i(eng_desc.op), .busy_i(ev_busy), .want_weights_i(ev_want_weights),
    .loading_i(ev_loading), .feed_i(ev_feed), .post_i(ev_post), .decrypting_i(decrypting),
    .macs_i(macs), .page_i(pg_valid && pg_ready && pg_last), .beat_i(beat),
    .raddr_i(reg_raddr[7:2]), .rdata_o(counter_word)
  );

  localparam int unsigned LayerAw = $clog2(MaxDescs);
  logic [31:0] layer_word;
  lk_layer_times u_layer_times (
    .clk_i(ap_clk), .rst_ni(ap_rst_n), .clear_i(count_clear), .running_i(running),
    .loaded_i(walker_run), .ended_i(eng_done && !eng_abort), .raddr_i(reg_raddr[2 +: LayerAw]),
    .rdata_o(layer_word)
  );

`ifdef LATCHKEY_TARGET_XILINX
  localparam logic VendorPrims = 1'b1;
`else
  localparam logic VendorPrims = 1'b0;
`endif
`ifdef LATCHKEY_TRACE
  localparam logic Waveforms = 1'b1;
`else
  localparam logic Waveforms = 1'b0;
`endif

  assign build_flags = {28'd0, Waveforms, VendorPrims, 1'b0, Locked};
  prim_build_hash #(.BuildHash(BuildHash)) u_build_hash (.hash_o(build_hash));

  // SEC_CM: REGS.NO_SECRETS: nothing below depends on key or on plaintext.
  always_comb begin
    unique case (reg_raddr)
      RegPagesAddrLo:  reg_rdata = pages_addr[31:0];
      RegPagesAddrHi:  reg_rdata = pages_addr[63:32];
      RegTagsAddrLo:   reg_rdata = tags_addr[31:0];
      RegTagsAddrHi:   reg_rdata = tags_addr[63:32];
      RegSpillAddrLo:  reg_rdata = spill_addr[31:0];
      RegSpillAddrHi:  reg_rdata = spill_addr[63:32];
      RegBatch:        reg_rdata = 32'(batch);
      RegKeyState:     reg_rdata = 32'(key_state);
      RegKeyErr:       reg_rdata = 32'(key_err);
      RegRunStatus:    reg_rdata = 32'(run_status);
      RegFailPage:     reg_rdata = fail_page;
      RegMinVersion:   reg_rdata = min_version;
      RegLcState:      reg_rdata = 32'(lc_state);
      RegStartCycles:  reg_rdata = start_cycles;
      RegSetupCycles:  reg_rdata = setup_cycles;
      RegUnstable:     reg_rdata = 32'(unstable);
      RegFloorVersion: reg_rdata = floor_version;
      RegFloorEpoch:   reg_rdata = floor_epoch;
      RegRunsLeft:     reg_rdata = runs_left;
      RegTimeLeft:     reg_rdata = time_left;
      RegBuildMagic:   reg_rdata = 32'h4843_4B4C;
      RegBuildFlags:   reg_rdata = build_flags;
      RegConfigId:     reg_rdata = ConfigId;
      RegArrayN:       reg_rdata = ArrayN;
      RegSpadWords:    reg_rdata = SpadWords;
      RegBuildVersion: reg_rdata = BuildVersion;
      RegBuildHash:    reg_rdata = build_hash;
      default: begin
        reg_rdata = '0;
        if (reg_raddr[15:8] == RegCounters[15:8]) reg_rdata = counter_word;
        else if (reg_raddr[15:5] == RegAttestOut[15:5]) reg_rdata = attest[32*reg_raddr[4:2] +: 32];
        else if (reg_raddr[15:4] == RegNonceOut[15:4]) reg_rdata = nonce[32*reg_raddr[3:2] +: 32];
        else if (reg_raddr[15:2+LayerAw] == RegLayerCycles[15:2+LayerAw]) reg_rdata = layer_word;
      end
    endcase
  end

  logic unused;
  assign unused = ^{ap_continue, reg_re, reg_wstrb};
endmodule
