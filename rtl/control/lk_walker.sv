// Page walker: runs ahead of the sequencer over the descriptors and asks for every page of the run
// in the order in which the engine will consume it, so that the next layer's weights are fetched
// and verified while this layer computes.
//
//   descriptor pages: region 0, index 0..desc_pages-1
//   each MatMul:      parameter pages once, then all tiles once per block of AccRows rows, those of
//                     all slices
//   each Depthwise:   parameter pages and tiles once
//   each Table, Softmax, LayerNorm, Product, Load: parameter pages only
//   each Load with spilled: pages of the spill area, which wait there until the Load runs
// With fuse_dw a MatMul's parameter pages are twice as many; then come, for each block of 64 output
// channels, a page of the Depthwise's weights and its tiles once per block of AccRows rows. With
// fuse_table the table's page is one more parameter page, the first.
module lk_walker (
  input  logic          clk_i,
  input  logic          rst_ni,
  input  logic          clear_i,         // stop and forget
  input  logic          boot_i,          // pulse: ask for the descriptor pages
  input  logic          run_i,           // pulse: the descriptors stand; walk them
  input  logic [31:0]   desc_pages_i,
  input  logic [31:0]   num_descs_i,
  input  logic [31:0]   num_pages_i,
  input  logic [31:0]   spill_pages_i,
  input  logic [15:0]   batch_i,
  output logic          finished_o,      // every page of the run was asked for
  output logic          bad_o,           // level: a page number lies outside the package or area
  output logic          desc_req_o,
  output logic [$clog2(lk_pkg::MaxDescs)-1:0] desc_idx_o,
  input  logic          desc_valid_i,
  input  lk_pkg::desc_t desc_i,
  output logic          req_valid_o,
  input  logic          req_ready_i,
  output logic [31:0]   req_page_o,
  output logic [15:0]   req_region_o,
  output logic [31:0]   req_index_o,
  output logic          req_spilled_o    // page and index are the number in the spill area
);
  typedef enum logic [3:0] {
    StIdle, StBoot, StRead, StSize, StBlocks, StParams, StDw, StTiles, StSpilled
  } state_e;

  state_e      state_q;
  logic [$clog2(lk_pkg::MaxDescs)-1:0] idx_q;
  logic [31:0] index_q, page_q;           // next page: within the region, global
  logic [31:0] first_tile_q, tiles_q, tile_q, base_q;
  logic [15:0] region_q, param_pages_q;
  logic [31:0] rows_q, blocks_q;
  logic [7:0]  slices_q;
  logic [23:0] images_q;
  logic        once_q, dw_q, spilled_q;
  logic [31:0] blocks_all_q, first_n_q;   // fuse_dw: blocks of rows; first tile of this n
  logic [15:0] n_q;
  logic        last_desc;

  assign last_desc    = 32'(idx_q) + 32'd1 == num_descs_i;
  assign desc_req_o   = state_q == StRead;
  assign desc_idx_o   = idx_q;
  logic asks, in_range;
  assign asks         = state_q == StBoot || state_q == StParams || state_q == StDw ||
                        state_q == StTiles || state_q == StSpilled;
  assign req_spilled_o = state_q == StSpilled;
  assign in_range     = page_q < (req_spilled_o ? spill_pages_i : num_pages_i);
  assign req_valid_o  = asks && in_range && !clear_i;
  assign req_page_o   = page_q;
  assign req_region_o = region_q;
  assign req_index_o  = index_q;
  assign bad_o        = asks && !in_range;

  // Sizes of the layer under the walker; the products are registered once each.
  logic [31:0] tiles_d;
  logic [15:0] out_h_q, out_w_q, n_tiles_q, k_tiles_q;
  assign tiles_d = n_tiles_q * k_tiles_q;
  logic [31:0] many;  // rows, or words, of all images
  assign many    = rows_q * 32'(images_q);

  task automatic next_descriptor();
    if (last_desc) begin
      state_q    <= StIdle;
      finished_o <= 1'b1;
    end else begin
      idx_q   <= idx_q + 1'b1;
      state_q <= StRead;
    end
  endtask

  always_ff @(posedge clk_i or negedge rst_ni) begin
    if (!rst_ni) begin
      state_q       <= StIdle;
      finished_o    <= 1'b0;
      idx_q         <= '0;
      index_q       <= '0;
      page_q        <= '0;
      first_tile_q  <= '0;
      tiles_q       <= '0;
      tile_q        <= '0;
      base_q        <= '0;
      region_q      <= '0;
      param_pages_q <= '0;
      rows_q        <= '0;
      blocks_q      <= '0;
      slices_q      <= '0;
      images_q      <= '0;
      once_q        <= 1'b0;
      dw_q          <= 1'b0;
      spilled_q     <= 1'b0;
      blocks_all_q  <= '0;
      first_n_q     <= '0;
      n_q           <= '0;
      out_h_q       <= '0;
      out_w_q       <= '0;
      n_tiles_q     <= '0;
      k_tiles_q     <= '0;
    end else if (clear_i) begin
      state_q    <= StIdle;
      finished_o <= 1'b0;
    end else begin
      unique case (state_q)
        StIdle: begin
          if (boot_i) begin
            finished_o <= 1'b0;
            region_q   <= '0;
            index_q    <= '0;
            page_q     <= '0;
            state_q    <= StBoot;
          end else if (run_i) begin
            idx_q   <= '0;
            state_q <= StRead;
          end
        end

        StBoot: if (req_valid_o && req_ready_i) begin
          index_q <= index_q + 1'b1;
          page_q  <= page_q + 1'b1;
          if (index_q + 1'b1 == desc_pages_i) state_q <= StIdle;
        end

        StRead: if (desc_valid_i) begin
          region_q      <= desc_i.region;
          base_q        <= desc_i.page_base;
          page_q        <= desc_i.page_base;
          index_q       <= '0;
          param_pages_q <= desc_i.fuse_dw ? desc_i.param_pages << 1
                                          : desc_i.param_pages + 16'(desc_i.fuse_table);
          out_h_q       <= desc_i.fuse_dw ? desc_i.mid_h : desc_i.out_h;
          out_w_q       <= desc_i.fuse_dw ? desc_i.mid_w : desc_i.out_w;
          dw_q          <= desc_i.op == lk_pkg::OpMatMul && desc_i.fuse_dw;
          n_tiles_q     <= desc_i.n_tiles;
          k_tiles_q     <= desc_i.k_tiles;
          slices_q      <= 8'd1;
          if (desc_i.op == lk_pkg::OpMatMul && desc_i.slices != '0) slices_q <= desc_i.slices;
          once_q        <= desc_i.op == lk_pkg::OpDepthwise;
          spilled_q     <= desc_i.op == lk_pkg::OpLoad && desc_i.spilled;
          rows_q        <= desc_i.out_stride;
          unique case (desc_i.op)
            lk_pkg::OpMatMul, lk_pkg::OpDepthwise: state_q <= StSize;
            lk_pkg::OpTable, lk_pkg::OpSoftmax, lk_pkg::OpLayerNorm, lk_pkg::OpProduct,
            lk_pkg::OpLoad: begin
              n_tiles_q <= '0;
              if (desc_i.op == lk_pkg::OpLoad && desc_i.spilled) begin
                index_q <= desc_i.spill_page;
                page_q  <= desc_i.spill_page;
              end
              state_q   <= StSize;
            end
            default: next_descriptor();
          endcase
        end

        StSize: begin
          if (!spilled_q) rows_q <= out_h_q * out_w_q;
          images_q <= 24'(batch_i) * 24'(slices_q);
          tiles_q  <= tiles_d;
          state_q  <= StBlocks;
        end

        StBlocks: begin
          // Blocks of AccRows rows, or pages of words, rounded up.
          blocks_q     <= spilled_q ? (many + lk_pkg::PageBeats - 1) / lk_pkg::PageBeats
                                    : (many + lk_pkg::AccRows - 1) / lk_pkg::AccRows;
          if (once_q) blocks_q <= 32'd1;
          n_q          <= '0;
          first_n_q    <= 32'(param_pages_q) + 32'(n_tiles_q);
          if (dw_q) tiles_q <= 32'(k_tiles_q);
          first_tile_q <= 32'(param_pages_q);
          tile_q       <= '0;
          if (spilled_q) state_q <= StSpilled;
          else if (param_pages_q != '0) state_q <= StParams;
          else if (tiles_q != '0) state_q <= StTiles;
          else next_descriptor();
        end

        StParams: if (req_valid_o && req_ready_i) begin
          index_q <= index_q + 1'b1;
          page_q  <= page_q + 1'b1;
          if (index_q + 1'b1 == first_tile_q) begin
            blocks_all_q <= blocks_q;
            if (dw_q) state_q <= StDw;
            else if (tiles_q != '0) state_q <= StTiles;
            else next_descriptor();
          end
        end

        StDw: if (req_valid_o && req_ready_i) begin
          index_q  <= first_n_q;
          page_q   <= base_q + first_n_q;
          blocks_q <= blocks_all_q;
          state_q  <= StTiles;
        end

        StSpilled: if (req_valid_o && req_ready_i) begin
          index_q  <= index_q + 1'b1;
          page_q   <= page_q + 1'b1;
          blocks_q <= blocks_q - 1'b1;
          if (blocks_q == 32'd1) next_descriptor();
        end

        StTiles: if (req_valid_o && req_ready_i) begin
          if (tile_q + 1'b1 == tiles_q) begin
            tile_q   <= '0;
            index_q  <= dw_q ? first_n_q : first_tile_q;
            page_q   <= base_q + (dw_q ? first_n_q : first_tile_q);
            blocks_q <= blocks_q - 1'b1;
            if (blocks_q == 32'd1) begin
              if (dw_q && n_q + 1'b1 != n_tiles_q) begin
                n_q       <= n_q + 1'b1;
                first_n_q <= first_n_q + tiles_q;
                index_q   <= first_tile_q + 32'(n_q) + 32'd1;
                page_q    <= base_q + first_tile_q + 32'(n_q) + 32'd1;
                state_q   <= StDw;
              end else begin
                next_descriptor();
              end
            end
          end else begin
            tile_q  <= tile_q + 1'b1;
            index_q <= index_q + 1'b1;
            page_q  <= page_q + 1'b1;
          end
        end

        default: state_q <= StIdle;
      endcase
    end
  end
endmodule
